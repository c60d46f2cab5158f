"""Why a stage has to run: its call, held against the most similar asset that exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from storage.assets import Asset
from storage.manifest import InputRecord, Manifest

IN_KEY = False

MOST_REASONS = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """What makes the key of a stage call."""

    stage: str
    version: int
    code: str
    config: Mapping[str, Any]
    config_in_key: Mapping[str, Any]
    """Without younger fields that change nothing."""
    inputs: Mapping[str, InputRecord]


def explain(wanted: Wanted, assets: Iterable[Asset]) -> str:
    """Say in words what differs from the most similar asset of the stage; `first run` when there is none."""
    closest: list[str] | None = None
    for asset in assets:
        try:
            manifest = asset.manifest
        except ValueError:
            continue
        if manifest.stage == wanted.stage:
            differences = _differences(wanted, manifest)
            if closest is None or len(differences) < len(closest):
                closest = differences
    if closest is None:
        return "first run"
    more = len(closest) - MOST_REASONS
    return "; ".join(closest[:MOST_REASONS]) + (f"; and {more} more changes" if more > 0 else "")


def _differences(wanted: Wanted, manifest: Manifest) -> list[str]:
    old, new, counts = leaves(manifest.config), leaves(wanted.config), leaves(wanted.config_in_key)
    differences = [
        f"config {name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and (name in old or name in counts)
    ]
    before = {record.name: record for record in manifest.inputs}
    for name, record in wanted.inputs.items():
        if name not in before or before[name].fingerprint != record.fingerprint:
            differences.append(f"input {name} changed{_raw_changes(before.get(name), record)}")
    if wanted.version != manifest.version:
        differences.append(f"stage version {manifest.version} -> {wanted.version}")
    elif wanted.code != manifest.code:
        differences.append("code changed")
    return differences or ["the published asset is gone"]


def _raw_changes(before: InputRecord | None, after: InputRecord) -> str:
    if before is None or before.kind != "raw" or after.kind != "raw":
        return ""
    old, new = {f.sha256 for f in before.files}, {f.sha256 for f in after.files}
    return f" ({len(new - old)} files new, {len(old - new)} gone)"


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings; `{"a": {"b": 1}} => {"a.b": 1}`."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= leaves(inner, f"{prefix}.{name}" if prefix else name)
    return flat

"""Manifests: what an asset is, where it came from, and the size and digest of every file and of the manifest itself."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from storage.files import is_temporary
from storage.hashing import digest, file_sha256, json_digest

IN_KEY = False

SCHEMA_VERSION = 2  # 1 had no digest
MANIFEST = "manifest.json"
LEFTOVER = "is what a killed run left half-written; earlier versions published that"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """One published file."""

    path: str
    size: int
    sha256: str

    def damage(self, folder: Path, *, deep: bool = False) -> str | None:
        """Return what is wrong with the file below a folder, in words; `deep` compares its SHA-256 as well."""
        if is_temporary(self.path):
            return LEFTOVER
        path = folder / self.path
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return "is missing"
        if size != self.size:
            return f"has {size} bytes where {self.size} were written"
        if deep and file_sha256(path) != self.sha256:
            return "has other content than was written (SHA-256 differs)"
        return None


class UnitRecord(_Record):
    """One unit: the smallest piece that is written whole, with the files that it wrote and what it reported."""

    id: str
    key: str
    files: tuple[FileRecord, ...]
    result: dict[str, Any] = {}


class InputRecord(_Record):
    """What a stage read: an asset by its kind and key, or raw files."""

    name: str
    kind: str
    key: str
    fingerprint: str
    files: tuple[FileRecord, ...] = ()


class UnitEntry(_Record):
    """A unit in a manifest; its files stand in the manifest's list."""

    id: str
    key: str
    files: tuple[str, ...]
    result: dict[str, Any] = {}


class Manifest(_Record):
    """What an asset is, where it came from, and the size and digest of every file."""

    schema_version: int = SCHEMA_VERSION
    stage: str
    kind: str
    key: str
    version: int
    code: str
    config: dict[str, Any]
    inputs: tuple[InputRecord, ...]
    files: tuple[FileRecord, ...]
    units: tuple[UnitEntry, ...]
    fingerprint: str
    counts: dict[str, Any]
    metrics: dict[str, float]
    pictures: tuple[str, ...] = ()
    """PNG files of the asset that show the result, what people look for first; those of before have none named."""
    seconds: float
    reason: str
    software: dict[str, str]
    machines: tuple[dict[str, str], ...] = ()
    """What else the bytes depend on, such as threads and processor, in the order in which they had a part in it; empty
    where the same bytes come out anywhere."""
    builds: tuple[str, ...] = ()
    """What the config names in `BUILDS`, and what the inputs did: whoever reads this asset runs that code, too."""
    created_at: datetime
    digest: str = ""
    """The SHA-256 of everything else that stands in the file; empty in those of schema version 1."""

    @property
    def made_on(self) -> str:
        """The machines in words, empty where none matters."""
        return ", then ".join(" ".join(f"{what} {value}" for what, value in m.items()) for m in self.machines)


class ManifestError(ValueError):
    """A manifest that is missing, or does not hold what was written."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(path, what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.args[0]} {self.what}: there is no published asset, or a damaged one, which the next run repairs"


def fingerprint(files: Iterable[FileRecord]) -> str:
    """Return the digest of paths and contents; nothing else of an asset enters it."""
    return digest(sorted((f.path, f.sha256) for f in files))


def sealed(manifest: Manifest) -> str:
    """Return a manifest's JSON with a digest of it."""
    facts = json.loads(manifest.model_dump_json(exclude={"digest"}))
    return manifest.model_copy(update={"digest": json_digest(facts)}).model_dump_json(indent=1)


def load_manifest(path: Path) -> Manifest:
    """Return the manifest in a file; `ManifestError` when it is missing or does not hold what was written.

    The digest is that of the JSON as it stands in the file: fields that later versions give a default change none.
    """
    try:
        data = path.read_bytes()
        manifest = Manifest.model_validate_json(data)
        facts = json.loads(data)
        facts.pop("digest", None)
        true = json_digest(facts) if manifest.schema_version > 1 else manifest.digest
    except FileNotFoundError:
        raise ManifestError(path, "is missing") from None
    except (ValueError, RecursionError):
        raise ManifestError(path, "is damaged") from None
    if outside := [record.path for record in manifest.files if _leads_outside(record.path)]:
        raise ManifestError(path, f"names a file outside of its folder, {outside[0][:200]!r}")
    if manifest.digest != true or manifest.fingerprint != fingerprint(manifest.files):
        raise ManifestError(path, "was changed after it was written (SHA-256 differs)")
    return manifest


def _leads_outside(path: str) -> bool:
    return path[:1] in ("", "/") or "\0" in path or ".." in path.split("/")


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest in a file; None when it is missing or damaged."""
    try:
        return load_manifest(path)
    except ManifestError:
        return None


def software_versions(
    packages: Sequence[str] = ("numpy", "zarr", "netCDF4", "torch", "prefect"),
) -> dict[str, str]:
    """Return the versions that a manifest records."""
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def now() -> datetime:
    """Return the current UTC time to the second."""
    return datetime.now(UTC).replace(microsecond=0)

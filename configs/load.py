"""Profiles and overrides: YAML files and `a.b=c` pairs become a validated configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from configs.base import Config

PROFILES = Path(__file__).parent / "profiles"
C = TypeVar("C", bound=Config)


def profile_names(pipeline: str) -> list[str]:
    """Return the profiles that come with a pipeline."""
    return sorted(path.stem for path in (PROFILES / pipeline).glob("*.yaml"))


def profile_path(pipeline: str, profile: str) -> Path:
    """Return the file of a profile: a name that comes with the pipeline, or a path to a YAML file of one's own."""
    known = PROFILES / pipeline / f"{profile}.yaml"
    if known.is_file():
        return known
    if profile.endswith((".yaml", ".yml")):
        if Path(profile).is_file():
            return Path(profile).absolute()
        raise ValueError(f"profile: there is no file {profile}")
    raise ValueError(
        f"profile: {pipeline} has no profile {profile!r}; it has {', '.join(profile_names(pipeline))}, or give the "
        "path of a .yaml file"
    )


def read_profile(path: Path) -> dict[str, Any]:
    """Return the fields that a YAML profile sets, as they stand there."""
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of configuration fields")
    return values


def load_config(model: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """Read a YAML profile, apply `a.b=value` overrides and validate; every fault is one `ValueError` sentence."""
    values = read_profile(path)
    for override in overrides:
        apply_override(values, *parse_override(override))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path.name}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Put a validation error into one sentence: each field with what is wrong and what was given."""
    problems = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "config"
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            text = "there is no such field"
        given = "" if isinstance(item["input"], dict) else f" (given {item['input']!r})"
        problems.append(f"{field}: {text}{given}")
    return "; ".join(problems)


def parse_override(override: str) -> tuple[str, Any]:
    """Return name and value of an `a.b=value`; the value is YAML."""
    name, sign, text = override.partition("=")
    if not sign or not name:
        raise ValueError(f"--set {override!r} must look like field.subfield=value")
    return name, yaml.safe_load(text)


def apply_override(values: dict[str, Any], name: str, value: Any) -> None:
    """Set `a.b.c` in nested mappings, making the groups on its way; `ValueError` where one is a value."""
    *path, last = name.split(".")
    target = values
    for part in path:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ValueError(f"{name}: {part} is a value, not a group of fields")
    target[last] = value

"""Profiles and overrides: YAML files and `a.b=c` pairs become a validated configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from configs.base import Config

PROFILES = Path(__file__).parent / "profiles"
EXTENDS, MINUTES = "extends", "minutes"  # what a profile says of itself
SHOWN = 200
"""Characters of a value that a message shows."""
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


def parse_yaml(text: str | bytes, name: str) -> Any:
    """Return what a YAML text holds; `ValueError` with its name where it is none."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # dates and numbers that are none
        raise ValueError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from None


def read_profile(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the fields that a YAML profile sets, on top of those of the profile that it `extends`, if any.

    `extends` names a profile of the same folder, or a YAML file from there on.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give this user the right to read it") from None
    values = parse_yaml(text, str(path)) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of configuration fields")
    values.pop(MINUTES, None)
    name = str(values.pop(EXTENDS, ""))
    if not name:
        return values
    basis = path.parent / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if not basis.is_file() or basis in (path, *extended_by):
        raise ValueError(f"{path} extends {name}, but {basis} is no other profile")
    return _merged(read_profile(basis, (path, *extended_by)), values)


def _merged(basis: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return groups of fields merged at any depth.

    A group of another `kind` takes the whole place of the old one, and null takes a group away.
    """
    merged = dict(basis)
    for name, value in values.items():
        old = basis.get(name)
        if not isinstance(old, dict):
            merged[name] = value
        elif value is None:
            del merged[name]
        elif isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind"):
            merged[name] = _merged(old, value)
        else:
            merged[name] = value
    return merged


def profile_minutes(path: Path) -> float | None:
    """Return how long a profile says that it takes on two cores where nothing is cached; None where it does not."""
    minutes = yaml.safe_load(path.read_text()).get(MINUTES)
    return None if minutes is None else float(minutes)


def load_config(model: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """Read a YAML profile, apply `a.b=value` overrides and validate; every fault is one `ValueError` sentence."""
    values = read_profile(path)
    for override in overrides:
        apply_override(values, *parse_override(override))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path.name}: {describe(error, values)}") from None


def describe(error: ValidationError, values: Any) -> str:
    """Put a validation error into one sentence: each field with what is wrong and what was given in `values`."""
    problems = []
    for item in error.errors():
        field = ".".join(_as_written(item["loc"], item["type"], values)) or "config"
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            text = "there is no such field"
        given = "" if isinstance(item["input"], dict) else f" (given {_short(item['input'])})"
        problems.append(f"{field}: {text}{given}")
    return "; ".join(problems)


def _as_written(location: Sequence[str | int], kind: str, values: Any) -> Iterator[str]:
    """Yield the parts of a location that somebody wrote, or should have; pydantic adds the names of alternatives."""
    for part in location:
        inside = range(len(values)) if isinstance(values, list | tuple) else values
        if isinstance(inside, Mapping | range) and part in inside:
            values = values[part]
        elif not (kind == "missing" and part == location[-1]):
            continue
        yield str(part)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."


def parse_override(override: str) -> tuple[str, Any]:
    """Return name and value of an `a.b=value`; the value is YAML."""
    name, sign, text = override.partition("=")
    if not sign or not name:
        raise ValueError(f"--set {override!r} must look like field.subfield=value")
    return name, parse_yaml(text, f"--set {override!r}")


def apply_override(values: dict[str, Any], name: str, value: Any) -> None:
    """Set `a.b.c` in nested mappings, making the groups on its way; `ValueError` where one is a value."""
    *path, last = name.split(".")
    target = values
    for part in path:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise ValueError(f"{name}: {part} is a value, not a group of fields")
    target[last] = value

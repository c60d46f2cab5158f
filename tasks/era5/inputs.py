"""The raw files behind an input, by content: where they are, and what to call them in messages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.weather import Recipe
from storage.assets import Asset
from storage.raw import RawInput, Stamp
from tasks.era5.netcdf import UnusableError, sniff

NETCDF_SUFFIXES = (".nc", ".nc4", ".cdf", ".zip")
NETCDF_MAGIC = (b"CDF", b"\x89HDF")


def may_be_netcdf(path: Path) -> bool:
    """Whether a file in a folder is meant as raw data: by its name, so that broken ones are noticed, or its content."""
    if path.suffix.lower() in NETCDF_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4).startswith(NETCDF_MAGIC)
    except OSError:
        return False


def what_it_is(path: Path) -> str:
    """Say what a file is that is not meant as raw data, and what to do where it could be."""
    try:
        return f"is {sniff(path)}"
    except UnusableError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def asked_for(raw: Any, recipe: Recipe) -> dict[str, list[str]]:
    """Return the contents of files that the user named one by one, and what the recipe wants of them."""
    if not isinstance(raw, RawInput) or not raw.named:
        return {}
    return {"named": list(raw.named), "wanted": [entry.variable for entry in recipe.variables]}


@dataclass(frozen=True, slots=True)
class RawFiles:
    """Paths and display names of raw files by the SHA-256 of their content; equal files appear once."""

    paths: dict[str, Path]
    stamps: dict[str, Stamp | None]
    """What the files looked like when they were hashed; None for those of an asset, which nobody changes."""
    names: dict[str, str]
    copies: int
    """Files left out because another one has the same content."""


def raw_files(raw: Asset | RawInput) -> RawFiles:
    """Return the NetCDF files (or archives of them) that an asset or a raw input holds."""
    if isinstance(raw, RawInput):
        found = [(f.sha256, f.path, f.stamp) for f in raw.files]
    else:
        records = [f for f in raw.manifest.files if f.path.endswith(NETCDF_SUFFIXES)]
        found = [(f.sha256, raw.folder / f.path, None) for f in records]
    paths: dict[str, Path] = {}
    stamps: dict[str, Stamp | None] = {}
    for sha, path, stamp in sorted(found, key=lambda file: file[:2]):
        if sha not in paths:
            paths[sha], stamps[sha] = path, stamp
    return RawFiles(paths, stamps, {sha: str(path) for sha, path in paths.items()}, len(found) - len(paths))

"""Every reader of foreign bytes, by name. A module's libraries are imported when its readers are asked for."""

from __future__ import annotations

from importlib import import_module

from tests.fuzz.case import Reader

MODULES = {
    "netcdf": "era5", "netcdf_classic": "era5", "netcdf_zip": "era5", "unit": "era5",
    "geotiff": "fire", "fire_frame": "fire", "fire_wind": "fire", "fire_archive": "fire",
    "png": "pictures", "jpeg": "pictures", "other_image": "pictures",
    "tsv": "lists", "folder_captions": "lists", "parquet": "lists", "tar": "lists",
    "body": "lists",
    "captions": "tables", "regions": "tables",
    "manifest": "settings", "yaml": "settings", "address": "settings",
    "checkpoint": "models", "safetensors": "models", "release": "models",
}  # fmt: skip


def reader(name: str) -> Reader:
    """Return a reader by its name."""
    readers: tuple[Reader, ...] = import_module(f"{__name__}.{MODULES[name]}").READERS
    return next(one for one in readers if one.name == name)

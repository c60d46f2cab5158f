"""The landscape of an archive: bands by their description, per-band validity, slopes, and the place on Earth."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.fire_data import ELEVATION_BANDS, FUEL_BANDS, KNOWN_BANDS, BandKind, Decoding
from storage.files import require_readable
from tasks.fire.ground import Pixel, pixel_size

SLOPES = ("slope_east", "slope_north")
MOST_CLASSES = 254
LARGEST = 2**28
"""Pixels of a raster."""
FILLS = (-9999, -99999, -32768, 32767, -32767, 65535, -2147483648, 2147483647, 4294967295)
"""Values that stand for "no data" wherever they occur, declared or not."""
HUGE = 1e30
"""Beyond it lie what programs fill floating-point bands with."""
METRES = ("", "m", "m.", "metre", "metres", "meter", "meters")
STEEP = 5
"""Metres per metre; a cliff of 79 degrees over a whole pixel."""
LOWEST, HIGHEST = -500, 9000
"""Metres above the sea; no dry land is outside of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Landscape:
    """Bands of one raster of Y rows and X columns; where a band is not valid it holds 0."""

    continuous: tuple[str, ...]
    values: NDArray[np.float32]
    """(C, Y, X) in the archive's units; slopes in metres per metre, positive where the ground rises."""
    values_valid: NDArray[np.bool_]
    """(C, Y, X)."""
    categorical: tuple[tuple[str, tuple[int, ...]], ...]
    """Name of every categorical or binary band and its codes in ascending order."""
    classes: NDArray[np.uint8]
    """(Q, Y, X): 1 + position among the band's codes, 0 where not valid."""
    fuel: int
    """Which categorical band decides burnability: its valid pixels are the domain."""
    facts: Mapping[str, Any]
    """`crs` (WKT, empty if none), `transform` (the affine transform's six numbers) and `cell_metres`."""
    notes: Sequence[str] = ()
    """What people should know about the raster; not saved."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.classes.shape[1], self.classes.shape[2]

    def save(self, path: Path) -> None:
        """Write a safetensors file; equal landscapes give equal bytes."""
        from safetensors.numpy import save_file

        words = {
            "continuous": self.continuous, "categorical": self.categorical, "fuel": self.fuel, "facts": self.facts,
        }  # fmt: skip
        arrays = {"values": self.values, "values_valid": self.values_valid, "classes": self.classes}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # save_file ignores strides
        save_file(arrays, path, metadata={"landscape": json.dumps(words, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> Landscape:
        """Read what `save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            words = json.loads(file.metadata()["landscape"])
            arrays = {name: file.get_tensor(name) for name in ("values", "values_valid", "classes")}
        categorical = tuple((name, tuple(codes)) for name, codes in words["categorical"])
        return cls(
            tuple(words["continuous"]), arrays["values"], arrays["values_valid"], categorical, arrays["classes"],
            words["fuel"], words["facts"],
        )  # fmt: skip


def read_landscape(path: Path, decoding: Decoding) -> Landscape:
    """Read a GeoTIFF; a pixel of a band is valid where the file's mask says so, it is finite and no nodata value."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    require_readable(path)
    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(path, driver="GTiff") as source,
        ):
            if source.width * source.height > LARGEST:
                raise ValueError(
                    f"{path} has {source.height} x {source.width} pixels, and at most {LARGEST} are read; cut "
                    "it to where the fires are, e.g. with gdalwarp -te"
                )
            kinds = band_kinds(path, source.descriptions, decoding)
            size = pixel_size(path, source.transform, source.crs, source.shape, decoding)
            facts = _facts(source, size)
            bands = {
                name: (kind, *_read_band(path, source, index, name, decoding))
                for index, (name, kind) in enumerate(kinds, 1)
                if kind != "ignore"
            }
    except RasterioError as error:
        raise ValueError(f"{path} cannot be read as a raster ({error}); replace it") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is damaged: it holds texts that are no UTF-8; replace it") from None
    land = _assemble(path, bands, facts, decoding)
    empty = [f"band {name} has no valid pixel" for name, (_, _, valid) in bands.items() if not valid.any()]
    notes = [f"{path}: {note}" for note in (size.note, _steepness(land, decoding), *empty) if note]
    return replace(land, notes=notes)


def _read_band(
    path: Path, source: Any, index: int, name: str, decoding: Decoding
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values of a band, scaled as the file says, and where they are valid."""
    if source.dtypes[index - 1].startswith("complex"):
        raise ValueError(
            f"{path}: band {name} holds {source.dtypes[index - 1]} numbers; write real ones, or one band per part"
        )
    unit = (source.units[index - 1] or "").strip().lower()
    if unit not in METRES and _pick(decoding.elevation_band, ELEVATION_BANDS, [name]) is not None:
        raise ValueError(f"{path}: band {name} is in {source.units[index - 1]}; convert it to metres for the slopes")
    band = source.read(index)
    valid = (source.read_masks(index) > 0) & np.isfinite(band) & ~np.isin(band, decoding.nodata)
    _check_fills(path, name, band[valid])
    scale, offset = source.scales[index - 1], source.offsets[index - 1]
    if not (math.isfinite(scale) and scale and math.isfinite(offset)):
        raise ValueError(f"{path}: band {name} has the scale {scale:g} and the offset {offset:g}; correct them")
    with np.errstate(over="ignore"):
        scaled = band if (scale, offset) == (1, 0) else band * float(scale) + float(offset)
    if not (np.abs(scaled[valid]) < HUGE).all():
        raise ValueError(
            f"{path}: band {name} has values up to {np.abs(scaled[valid]).max():g} by its scale {scale:g} and offset "
            f"{offset:g}; correct them"
        )
    return scaled, valid


def _check_fills(path: Path, name: str, values: NDArray[Any]) -> None:
    """Refuse values that stand for no data and are not declared."""
    suspects = values[np.isin(values, FILLS) | (np.abs(values.astype(np.float64)) > HUGE)]
    if len(suspects):
        raise ValueError(
            f"{path}: band {name} holds {suspects[0]:g} on {np.count_nonzero(suspects == suspects[0])} pixels, which "
            "stands for no data but is not declared; declare it in the file, e.g. with gdal_edit.py -a_nodata, or add "
            "it to decoding.nodata"
        )


def _check_elevation(path: Path, name: str, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    """Refuse heights that no land on Earth has: they would be cliffs."""
    outside = valid & ((values < LOWEST) | (values > HIGHEST))
    if outside.any():
        found = [f"{v:g}" for v in np.unique(values[outside])[:3]]
        raise ValueError(
            f"{path}: band {name} holds {', '.join(found)} on {np.count_nonzero(outside)} pixels, but heights are from "
            f"{LOWEST} to {HIGHEST} metres; declare what stands for no data in the file or in decoding.nodata, and "
            "convert other units"
        )


def _steepness(land: Landscape, decoding: Decoding) -> str:
    """Return a sentence on slopes that hardly any land has, with the height that most of them touch; "" if none."""
    if SLOPES[0] not in land.continuous:
        return ""
    east = land.continuous.index(SLOPES[0])
    steep = (np.abs(land.values[east : east + 2]) > STEEP).any(axis=0)
    if not steep.any():
        return ""
    elevation = _pick(decoding.elevation_band, ELEVATION_BANDS, land.continuous)
    heights, counts = np.unique(land.values[elevation][steep & land.values_valid[elevation]], return_counts=True)
    return (
        f"slopes are steeper than {STEEP} metres per metre on {np.count_nonzero(steep)} pixels, most often beside the "
        f"height {heights[counts.argmax()]:g}; if that stands for no data, add it to decoding.nodata"
    )


def _assemble(
    path: Path,
    bands: Mapping[str, tuple[BandKind, NDArray[Any], NDArray[np.bool_]]],
    facts: dict[str, Any],
    decoding: Decoding,
) -> Landscape:
    names, values, valids = [], [], []
    categorical, classes = [], []
    for name, (kind, band, valid) in bands.items():
        if kind == "continuous":
            names.append(name)
            values.append(np.where(valid, band, 0).astype(np.float32))
            valids.append(valid)
        else:
            codes, positions = _codes(path, name, np.where(valid, band, 0), valid, binary=kind == "binary")
            categorical.append((name, codes))
            classes.append(positions)
    fuel = _pick(decoding.fuel_band, FUEL_BANDS, [name for name, _ in categorical])
    if fuel is None:
        raise ValueError(
            f"{path} has no categorical band of fuels, only {', '.join(bands)}; name it with decoding.fuel_band"
        )
    elevation = _pick(decoding.elevation_band, ELEVATION_BANDS, names)
    if elevation is None and decoding.elevation_band is not None:
        raise ValueError(f"{path} has no continuous band {decoding.elevation_band!r}; correct decoding.elevation_band")
    if elevation is not None:
        z, valid = values[elevation], valids[elevation]
        _check_elevation(path, names[elevation], z, valid)
        east, east_valid = slope(z, valid, facts["cell_east"])
        north, north_valid = slope(z.T, valid.T, -facts["cell_north"])
        names += SLOPES
        values += [east, north.T]
        valids += [east_valid, north_valid.T]
    shape = classes[0].shape
    return Landscape(
        tuple(names),
        np.stack(values) if values else np.zeros((0, *shape), np.float32),
        np.stack(valids) if valids else np.zeros((0, *shape), bool),
        tuple(categorical),
        np.stack(classes),
        fuel,
        facts,
    )


def band_kinds(path: Path, descriptions: Sequence[str | None], decoding: Decoding) -> list[tuple[str, BandKind]]:
    """Return name and kind of every band; `ValueError` when a band has no description, or none known or declared."""
    declared = {recipe.name.lower(): recipe.kind for recipe in decoding.bands}
    names = [(text or "").strip() for text in descriptions]
    if not all(names) or len({name.lower() for name in names}) < len(names):
        shown = ", ".join(f"{i} {name!r}" for i, name in enumerate(names, 1))
        raise ValueError(
            f"{path}: every band needs a description of its own, but they are {shown}; set them, e.g. with "
            "rio edit-info or gdal_edit.py"
        )
    unknown = [name for name in names if name.lower() not in declared | KNOWN_BANDS]
    if unknown:
        todo = ", ".join(f"{{name: {name}, kind: continuous|categorical|binary|ignore}}" for name in unknown)
        raise ValueError(
            f"{path} has bands whose kind is not known: {', '.join(unknown)} (of {', '.join(names)}); declare them: "
            f"decoding.bands=[{todo}]"
        )
    if absent := sorted(declared.keys() - {name.lower() for name in names}):
        raise ValueError(f"{path} has no band {', '.join(absent)}, only {', '.join(names)}; correct decoding.bands")
    return [(name, (declared.get(name.lower()) or KNOWN_BANDS[name.lower()])) for name in names]


def _pick(wanted: str | None, usual: Sequence[str], names: Sequence[str]) -> int | None:
    lower = [name.lower() for name in names]
    for name in [wanted.lower()] if wanted else usual:
        if name in lower:
            return lower.index(name)
    return None


def _codes(
    path: Path, name: str, band: NDArray[Any], valid: NDArray[np.bool_], *, binary: bool
) -> tuple[tuple[int, ...], NDArray[np.uint8]]:
    """Return the codes of a band and, per pixel, 1 + the position of its code, 0 where not valid."""
    if binary:
        return (0, 1), np.where(valid, 1 + (band != 0), 0).astype(np.uint8)
    present = np.unique(band[valid])
    if len(present) > MOST_CLASSES or not (present == np.floor(present)).all():
        raise ValueError(
            f"{path}: band {name} is declared categorical but has {len(present)} different values"
            f"{'' if (present == np.floor(present)).all() else ', not all whole numbers'}; declare it continuous"
        )
    codes = tuple(int(code) for code in present)
    return codes, np.where(valid, 1 + np.searchsorted(present, band), 0).astype(np.uint8)


def slope(
    z: NDArray[np.float32], valid: NDArray[np.bool_], step: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return dz/dx along the last axis and where it is known, for neighbours `step` metres apart.

    The central difference where both neighbours are valid, the one-sided one where only one is, at edges too.
    """
    height = z.astype(np.float64)
    ahead = np.zeros(z.shape)
    ahead_known = np.zeros(z.shape, bool)
    ahead[:, :-1] = (height[:, 1:] - height[:, :-1]) / step
    ahead_known[:, :-1] = valid[:, 1:] & valid[:, :-1]
    behind, behind_known = np.roll(ahead, 1, axis=1), np.roll(ahead_known, 1, axis=1)
    count = ahead_known.astype(np.int8) + behind_known
    total = ahead * ahead_known + behind * behind_known
    return (total / np.maximum(count, 1)).astype(np.float32), count > 0


def _facts(source: Any, size: Pixel) -> dict[str, Any]:
    """Return the place on Earth and the sides of a pixel."""
    return {
        "crs": source.crs.to_wkt() if source.crs else "",
        "transform": [float(v) for v in tuple(source.transform)[:6]],
        "cell_metres": math.sqrt(size.east * size.north),
        "cell_east": size.east,
        "cell_north": size.north,
    }

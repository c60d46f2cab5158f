"""The landscape of an archive: bands by their description, per-band validity, slopes, and the place on Earth."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.fire_data import ELEVATION_BANDS, FUEL_BANDS, KNOWN_BANDS, BandKind, Decoding

SLOPES = ("slope_east", "slope_north")
MOST_CLASSES = 254
SQUARE = 0.05  # relative difference of a pixel's sides that is still taken for a square


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

    try:
        with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning), rasterio.open(path) as source:
            kinds = band_kinds(path, source.descriptions, decoding)
            facts = _facts(path, source.transform, source.crs, decoding)
            bands = {}
            for index, (name, kind) in enumerate(kinds, 1):
                if kind != "ignore":
                    band = source.read(index)
                    valid = (source.read_masks(index) > 0) & np.isfinite(band)
                    valid &= ~np.isin(band, decoding.nodata)
                    bands[name] = kind, band, valid
    except RasterioError as error:
        raise ValueError(f"{path} cannot be read as a raster ({error}); replace it") from None
    return _assemble(path, bands, facts, decoding)


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


def _facts(path: Path, transform: Any, crs: Any, decoding: Decoding) -> dict[str, Any]:
    """Return the place on Earth; refuse rasters whose rows and columns are not north-south and east-west."""
    numbers = [float(v) for v in (transform.a, transform.b, transform.c, transform.d, transform.e, transform.f)]
    place = {"crs": crs.to_wkt() if crs else "", "transform": numbers}
    if transform.is_identity:
        if decoding.cell_metres is None:
            raise ValueError(f"{path} has no georeference; set decoding.cell_metres to the side of a pixel in metres")
        metres = decoding.cell_metres
        return place | {"cell_metres": metres, "cell_east": metres, "cell_north": metres}
    a, b, _, d, e, f = numbers
    if not (a > 0 > e and b == d == 0):
        raise ValueError(f"{path} is not north-up (transform {numbers}); warp it first, e.g. with gdalwarp")
    if decoding.cell_metres is not None:
        unit_east = unit_north = decoding.cell_metres / math.sqrt(-a * e)
    elif crs is not None and crs.is_geographic:
        unit_north = math.pi / 180 * 6_371_008.8
        unit_east = unit_north * math.cos(math.radians(f))
    else:
        unit_east = unit_north = crs.linear_units_factor[1] if crs else 1.0
    east, north = a * unit_east, -e * unit_north
    if abs(east / north - 1) > SQUARE:
        raise ValueError(
            f"{path} has pixels of {east:.4g} by {north:.4g} metres; warp it to square ones in a metric projection "
            "first, e.g. with gdalwarp -t_srs"
        )
    return place | {"cell_metres": math.sqrt(east * north), "cell_east": east, "cell_north": north}

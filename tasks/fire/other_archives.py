"""What an archive has to be for a model that was trained on another one: of its pixels, and without its fires."""

from __future__ import annotations

import math
from hashlib import sha256
from pathlib import Path

import numpy as np

from configs.fire_data import Decoding
from storage.fire_split import PARTS, FireEntry, FireSplit
from storage.token_cache import TokenCache
from tasks.fire.archive import LANDSCAPE
from tasks.fire.ground import pixel_size

PIXELS_APART = 0.05
"""Share by which pixels may differ in size; a front moves by pixels."""
SHOWN = 5


def require_same_pixels(archive: Path, cell_metres: float) -> None:
    """Raise a `ValueError` where the pixels of a token cache are not as large as those that a model was trained on."""
    _require_alike(TokenCache.open(archive).cell_metres, cell_metres)


def require_pixels_as_told(archive: Path, cache: Path | None) -> None:
    """Raise a `ValueError` where `decoding.cell_metres` of a model's data is not true of the archive it was lent to.

    The raster of the model's own `cache`, where that is still there, is taken for what people said of it.
    """
    theirs = TokenCache.open(archive)
    if theirs.attributes["decoding"]["cell_metres"] is None:
        return
    if cache is None or _raster(theirs) != _raster(TokenCache.open(cache)):
        _require_alike(_measured_side(theirs), theirs.cell_metres)


def _require_alike(archive_metres: float, model_metres: float) -> None:
    if abs(archive_metres / model_metres - 1) > PIXELS_APART:
        raise ValueError(
            f"the archive's pixels are {archive_metres:.4g} m wide, but the model was trained on {model_metres:.4g} "
            "m: it would spread fire by as many pixels, not metres; give an archive of that resolution"
        )


def _raster(cache: TokenCache) -> tuple[str, tuple[float, ...], tuple[int, ...]]:
    """Return what tells where on Earth the pixels of a cache are."""
    return cache.crs, cache.transform, cache.array("landscape/classes").shape[1:]


def _measured_side(cache: TokenCache) -> float:
    """Return the side of a pixel in metres by the georeference alone; what was told where that does not say it."""
    from rasterio.crs import CRS
    from rasterio.transform import Affine

    crs, transform, shape = _raster(cache)
    system, affine = CRS.from_wkt(crs) if crs else None, Affine(*transform)
    if affine.is_identity:
        return cache.cell_metres
    try:
        size = pixel_size(Path(LANDSCAPE), affine, system, (shape[0], shape[1]), Decoding())
    except ValueError:
        if system is not None and (system.is_projected or system.is_geographic):
            raise
        return cache.cell_metres
    return math.sqrt(size.east * size.north)


def require_unknown_fires(archive: Path, cache: Path, split: Path) -> None:
    """Raise a `ValueError` where a token cache holds fires that a model was trained or chosen on, by their content."""
    theirs, ours = TokenCache.open(archive), TokenCache.open(cache)
    fires = [entry for part in ("train", "validation") for entry in FireSplit.load(split).part(part)]
    known = {_content(ours, entry.fire) for entry in fires}
    met = [name for fire, name in enumerate(theirs.names) if _content(theirs, fire) in known]
    if met:
        more = f" and {len(met) - SHOWN} more" if len(met) > SHOWN else ""
        raise ValueError(
            f"{len(met)} of the archive's {len(theirs.names)} fires are among those that the model was trained or "
            f"chosen on: {', '.join(met[:SHOWN])}{more}; its scores would say little. Judge it on an archive without "
            "them, e.g. on a copy whose landscape is a link"
        )


def met_before(archive: Path, fire: int, cache: Path, split: Path) -> FireEntry | None:
    """Return what became of an archive's fire in a model's split, by its content; None where the model's cache has no
    such fire.
    """
    theirs, ours = TokenCache.open(archive), TokenCache.open(cache)
    crop, content = theirs.crops[fire], _content(theirs, fire)
    same = [e for e in FireSplit.load(split).fires if ours.crops[e.fire] == crop and _content(ours, e.fire) == content]
    return min(same, key=lambda entry: (*PARTS, None).index(entry.part), default=None)


def _content(cache: TokenCache, fire: int) -> str:
    """Return a digest of where a fire burns and when."""
    crop, frames = cache.crops[fire], cache.frames(fire)
    place = f"{cache.crs} {cache.transform} {crop.y0} {crop.x0} {frames.shape}"
    return sha256(place.encode() + np.packbits(frames).tobytes()).hexdigest()

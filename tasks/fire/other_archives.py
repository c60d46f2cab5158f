"""What an archive has to be for a model that was trained on another one: of its pixels, and without its fires."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

from storage.fire_split import FireSplit
from storage.token_cache import TokenCache

PIXELS_APART = 0.05
"""Share by which pixels may differ in size; a front moves by pixels."""
SHOWN = 5


def require_same_pixels(archive: Path, cell_metres: float) -> None:
    """Raise a `ValueError` where the pixels of a token cache are not as large as those that a model was trained on."""
    tokens = TokenCache.open(archive)
    if abs(tokens.cell_metres / cell_metres - 1) > PIXELS_APART:
        raise ValueError(
            f"the archive's pixels are {tokens.cell_metres:.4g} m wide, but the model was trained on {cell_metres:.4g} "
            "m: it would spread fire by as many pixels, not metres; give an archive of that resolution"
        )


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


def _content(cache: TokenCache, fire: int) -> str:
    """Return a digest of where a fire burns and when."""
    crop, frames = cache.crops[fire], cache.frames(fire)
    place = f"{cache.crs} {cache.transform} {crop.y0} {crop.x0} {frames.shape}"
    return sha256(place.encode() + np.packbits(frames).tobytes()).hexdigest()

"""Small images for tests, in every way in which the web serves them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def scenery(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    """Return a smooth, coloured picture that is no mirror image of itself."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return a picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(image: Image.Image, orientation: int) -> bytes:
    """Return a JPEG that declares an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, exif=exif, quality=95)

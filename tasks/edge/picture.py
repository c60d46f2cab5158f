"""Images as the model was trained on them: the middle square, scaled as the loader of the training scales.

The training's `storage/image_decoding.py` without OpenCV. A reduction averages areas; below a factor of 1.5, and where
an image is enlarged, it is linear interpolation. JPEGs are reduced by two or more while they are decoded, as far as
they stay as large as wanted.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

FEW = 1.5
"""Reductions below this interpolate."""
JPEG = b"\xff\xd8\xff"
MOST_PIXELS = 50_000_000


def read_picture(source: Path | Image.Image, side: int) -> NDArray[np.uint8]:
    """Return RGB pixels (3, side, side) of a file or an image; `ValueError` where there is no readable one."""
    if isinstance(source, Image.Image):
        return _square(_pixels(source), side)
    try:
        content = source.read_bytes()
        if content.startswith(JPEG):
            decoded = simplejpeg.decode_jpeg(content, "RGB", min_height=side, min_width=side, min_factor=2, strict=True)
            return _square(decoded, side)
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            return _square(_pixels(image), side)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source} cannot be read as an image: {error}; name a whole JPEG or PNG file") from error


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def _square(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    middle = _middle(pixels).transpose(2, 0, 1)
    size = middle.shape[1]
    if size == side:
        return np.ascontiguousarray(middle)
    weights = _area_weights(size, side) if size / side >= FEW else _linear_weights(size, side)
    scaled = np.stack([weights @ plane.astype(np.float32) @ weights.T for plane in middle])
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _area_weights(size: int, side: int) -> NDArray[np.float32]:
    """Return the share (side, size) that each old pixel has in the area of each new one."""
    edges = np.arange(side + 1) * (size / side)
    begins, ends = edges[:-1, None], edges[1:, None]
    overlap = np.minimum(ends, np.arange(size) + 1) - np.maximum(begins, np.arange(size))
    return (np.maximum(overlap, 0) * (side / size)).astype(np.float32)


def _linear_weights(size: int, side: int) -> NDArray[np.float32]:
    """Return the weights (side, size) of the two old pixels around the middle of each new one."""
    centres = np.clip((np.arange(side) + 0.5) * (size / side) - 0.5, 0, size - 1)
    return np.maximum(1 - np.abs(centres[:, None] - np.arange(size)), 0).astype(np.float32)

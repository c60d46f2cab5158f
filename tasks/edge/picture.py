"""Images as the model was trained on them: the middle square, scaled as the loader of the training scales.

A reduction averages areas; below a factor of 1.5, and where an image is enlarged, it is linear interpolation. JPEGs are
reduced by powers of two while they are decoded, as far as they stay as large as wanted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

FEW = 1.5
"""Reductions below this interpolate."""
MOST_PIXELS = 100_000_000


def read_picture(source: Path | Image.Image, side: int) -> NDArray[np.uint8]:
    """Return RGB pixels (3, side, side) of a file or an image; `ValueError` where there is no readable one."""
    if isinstance(source, Image.Image):
        return _square(source, side)
    try:
        with Image.open(source) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{source} has {image.width} x {image.height} pixels; scale it down first")
            image.draft("RGB", _draft_size(image, side))
            return _square(image, side)
    except (UnidentifiedImageError, FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"{source} is no image that can be read; name a JPEG or PNG file") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source} cannot be decoded: {error}; name another file") from error


def _draft_size(image: Image.Image, side: int) -> tuple[int, int]:
    """Return what the decoder may reduce a JPEG to: the shorter side keeps the length that is wanted."""
    scale = side / min(image.size)
    return max(1, int(image.width * scale)), max(1, int(image.height * scale))


def _square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    pixels = np.asarray(_middle(image).convert("RGB"))
    size = pixels.shape[0]
    if size != side:
        weights = _area_weights(size, side) if size / side >= FEW else _linear_weights(size, side)
        rows = np.stack([weights @ pixels[..., channel].astype(np.float32) for channel in range(3)])
        pixels = np.clip(np.rint(rows @ weights.T), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(pixels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _middle(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


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

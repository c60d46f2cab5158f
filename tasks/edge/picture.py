"""Images as the model was trained on them, all of them or the middle square, scaled as the training's loader scales.

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


def read_picture(source: Path | Image.Image, side: int, fit: str) -> NDArray[np.uint8]:
    """Return RGB pixels (3, side, side) of a file or an image; `ValueError` where there is no readable one."""
    if isinstance(source, Image.Image):
        return _square(np.asarray(source.convert("RGB")), _size(source.height, source.width, side, fit), side, fit)
    try:
        content = source.read_bytes()
        if content.startswith(JPEG):
            height, width, *_ = simplejpeg.decode_jpeg_header(content)
            size = _size(height, width, side, fit)
            pixels = simplejpeg.decode_jpeg(
                content, "RGB", min_height=size[0], min_width=size[1], min_factor=2, strict=True
            )
            return _square(pixels, size, side, fit)
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            return read_picture(image, side, fit)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source} cannot be read as an image: {error}; name a whole JPEG or PNG file") from error


def _size(height: int, width: int, side: int, fit: str) -> tuple[int, int]:
    """Return the height and width to which an image is scaled, all of it or its middle square."""
    if fit == "crop":
        return side, side
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _square(pixels: NDArray[np.uint8], size: tuple[int, int], side: int, fit: str) -> NDArray[np.uint8]:
    height, width = size
    planes = (_middle(pixels) if fit == "crop" else pixels).transpose(2, 0, 1)
    square = np.zeros((3, side, side), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = _scaled(planes, height, width)
    return square


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _scaled(planes: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return planes (3, height, width) of larger or smaller ones; both sides are scaled alike, up to rounding."""
    reduction = min(planes.shape[1] / height, planes.shape[2] / width)
    weights = _linear_weights if reduction < FEW else _area_weights
    across, down = weights(planes.shape[2], width).T, weights(planes.shape[1], height)
    scaled = np.stack([down @ plane.astype(np.float32) @ across for plane in planes])
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


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

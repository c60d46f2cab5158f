"""Images as the model was trained on them, all of them or the middle square, scaled as the training's loader scales.

The training's `storage/image_decoding.py` without OpenCV. A reduction averages areas; below a factor of 1.5, and where
an image is enlarged, it is linear interpolation. JPEGs are reduced by two or more while they are decoded, as far as
they stay as large as wanted. As in training, images are upright, what is transparent is white, and of 16 bits the
higher 8 are taken; colour profiles are not applied here.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

FEW = 1.5
"""Reductions below this interpolate."""
JPEG = b"\xff\xd8\xff"
MOST_PIXELS = 50_000_000
QUARTER_TURNS = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}
"""Turns to the left that bring an image of an EXIF orientation upright."""
MIRRORED = (2, 4, 5, 7)
"""EXIF orientations that are mirrored left to right besides."""


def read_picture(source: Path | Image.Image, side: int, fit: str) -> NDArray[np.uint8]:
    """Return RGB pixels (3, side, side) of a file or an image; `ValueError` where there is no readable one."""
    if isinstance(source, Image.Image):
        pixels = _colours(ImageOps.exif_transpose(source))
        return _square(pixels, _size(pixels.shape[0], pixels.shape[1], side, fit), side, fit)
    try:
        content = source.read_bytes()
        if content.startswith(JPEG):
            height, width, *_ = simplejpeg.decode_jpeg_header(content)
            orientation = _orientation(content)
            lying = orientation >= 5
            size = _size(*((width, height) if lying else (height, width)), side, fit)
            low, narrow = size[::-1] if lying else size
            pixels = simplejpeg.decode_jpeg(content, "RGB", min_height=low, min_width=narrow, min_factor=2, strict=True)
            return _square(_upright(pixels, orientation), size, side, fit)
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            return read_picture(image, side, fit)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source} cannot be read as an image: {error}; name a whole JPEG or PNG file") from error


def _orientation(jpeg: bytes) -> int:
    """Return the orientation that a JPEG's EXIF declares; 1 where it declares none."""
    with Image.open(io.BytesIO(jpeg)) as image:
        found: int = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    pixels = np.rot90(pixels, QUARTER_TURNS.get(orientation, 0))
    return pixels[:, ::-1] if orientation in MIRRORED else pixels


def _colours(image: Image.Image) -> NDArray[np.uint8]:
    """Return the RGB pixels (height, width, 3) of an image of any mode, on white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


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

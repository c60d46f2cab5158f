"""JPEGs to square pixels for training: decoded strictly, scaled while decoding where that is quick, never by Pillow."""

from __future__ import annotations

from typing import cast, get_args

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from configs.vision_language import Fit

cv2.setNumThreads(1)  # loader processes are the parallelism

Pixels = NDArray[np.uint8]
FITS: tuple[Fit, ...] = get_args(Fit)

FEW = 1.5
"""Reductions below this are as good with linear interpolation as with areas, at a tenth of the time."""


def decode_square(jpeg: bytes | memoryview, side: int, fit: Fit) -> Pixels:
    """Return RGB pixels (side, side, 3); `ValueError` for bytes with any defect that the decoder notices.

    `crop` scales the shorter side to `side` and keeps the middle; `pad` scales the longer side and centres the image
    on black. Smaller images are enlarged.
    """
    if fit == "crop":
        return _scaled(_middle(_decode(jpeg, side, side)), side, side)
    height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
    scale = side / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = _scaled(_decode(jpeg, height, width), height, width)
    return square


def _decode(jpeg: bytes | memoryview, height: int, width: int) -> Pixels:
    """Return pixels, scaled down by a factor of two or more as far as they stay as large as wanted.

    The decoder offers smaller factors too; they take longer than decoding everything, and blur.
    """
    return simplejpeg.decode_jpeg(jpeg, "RGB", min_height=height, min_width=width, min_factor=2, strict=True)


def _middle(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def _scaled(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    reduction = min(pixels.shape[0] / height, pixels.shape[1] / width)
    interpolation = cv2.INTER_LINEAR if reduction < FEW else cv2.INTER_AREA
    return cast(Pixels, cv2.resize(pixels, (width, height), interpolation=interpolation))

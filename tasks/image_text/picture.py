"""From the bytes of a downloaded file to the JPEG that is stored: sniffed, bounded, decoded strictly, upright, RGB."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from configs.image_text import ImageFormat

cv2.setNumThreads(1)  # the processes are the parallelism
Image.MAX_IMAGE_PIXELS = None  # bounded here, by the header

Pixels = NDArray[np.uint8]
ORIENTATION = 0x0112
JPEG = b"\xff\xd8\xff"
SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"RIFF": "WEBP", b"BM": "BMP", b"\0\0\0": "AVIF",
}  # fmt: skip
"""Other formats than JPEG by their first bytes; Pillow looks closer, and is allowed that one format only."""
QUARTER_TURNS = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}
"""Turns to the left that bring an image of an EXIF orientation upright."""
MIRRORED = (2, 4, 5, 7)
"""EXIF orientations that are mirrored left to right besides."""
TEXTURELESS = 1.5
"""Grey levels of standard deviation below which a perceptual hash is noise."""


class UnusableError(Exception):
    """Bytes that make no image to store, with the status that says why."""

    def __init__(self, status: str, detail: str = "") -> None:
        super().__init__(status, detail)
        self.status, self.detail = status, detail


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it is stored, and how large it was."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    phash: int
    """64-bit perceptual hash of the stored pixels; 0 where the image has too little texture for one."""


def make_picture(data: bytes, rules: ImageFormat) -> Picture:
    """Decode, check, scale and encode; `UnusableError` where that is not possible."""
    pixels, size = _decode_jpeg(data, rules) if data.startswith(JPEG) else _decode_other(data, rules)
    pixels = _fit(pixels, rules)
    height, width = pixels.shape[:2]
    jpeg = simplejpeg.encode_jpeg(pixels, rules.quality, "RGB", "420", fastdct=False)
    return Picture(jpeg, width, height, *size, perceptual_hash(pixels))


def _decode_jpeg(data: bytes, rules: ImageFormat) -> tuple[Pixels, tuple[int, int]]:
    """Return upright pixels, at least as large as wanted, and the upright image's width and height.

    Scaling by 1/2, 1/4 or 1/8 happens while decoding. Warnings of the decoder are errors: a truncated image would
    otherwise come out half grey.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise _undecodable(error) from None
    _check_size(width, height, rules)
    if colours in ("CMYK", "YCCK"):
        return _decode_with_pillow(data, "JPEG", rules)
    wanted_height, wanted_width = _wanted(height, width, rules)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=wanted_height, min_width=wanted_width, strict=True)
    except ValueError as error:
        raise _undecodable(error) from None
    orientation = exif_orientation(data)
    if orientation != 1:
        pixels = np.rot90(pixels, QUARTER_TURNS.get(orientation, 0))
        pixels = np.ascontiguousarray(pixels[:, ::-1] if orientation in MIRRORED else pixels)
    return pixels, (height, width) if orientation >= 5 else (width, height)


def _undecodable(error: Exception) -> UnusableError:
    text = " ".join(str(error).split())
    return UnusableError("truncated" if "remature" in text or "truncated" in text else "decode_error", text)


def exif_orientation(data: bytes) -> int:
    """Return the orientation that a JPEG's EXIF segment declares, 1 (upright) where it has none."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            return _orientation_of(data[position + 4 : end])
        position = end
    return 1


def _orientation_of(segment: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(segment)
        value = exif.get(ORIENTATION, 1)
    except (SyntaxError, ValueError, OSError, TypeError):  # damaged metadata turns nothing
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode_other(data: bytes, rules: ImageFormat) -> tuple[Pixels, tuple[int, int]]:
    kind = next((name for start, name in SIGNATURES.items() if data.startswith(start)), None)
    if kind is None:
        raise UnusableError("not_image", f"begins with {data[:12]!r}")
    return _decode_with_pillow(data, kind, rules)


def _decode_with_pillow(data: bytes, kind: str, rules: ImageFormat) -> tuple[Pixels, tuple[int, int]]:
    """Return upright RGB pixels and their width and height; the first frame, transparency on white."""
    try:
        image: Any = Image.open(io.BytesIO(data), formats=(kind,))
    except UnidentifiedImageError:
        raise UnusableError("not_image", f"begins with {data[:12]!r}") from None
    except Exception as error:  # Pillow's readers raise what they like on damaged headers
        raise _undecodable(error) from None
    width, height = image.size
    _check_size(width, height, rules)
    try:
        image.load()
        image = _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:
        raise _undecodable(error) from None
    return np.asarray(image), image.size


def _to_rgb(image: Any) -> Any:
    if image.mode.startswith("I"):  # 16 bits of grey, which a plain conversion would clip
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _check_size(width: int, height: int, rules: ImageFormat) -> None:
    """Refuse sizes by the header alone, before anything is decoded."""
    shorter, longer = sorted((width, height))
    size = f"{width} x {height} pixels"
    if width * height > rules.max_megapixels * 1e6:
        raise UnusableError("too_many_pixels", size)
    if shorter < rules.min_side:
        raise UnusableError("too_small", size)
    if longer > rules.max_aspect * shorter:
        raise UnusableError("aspect", size)


def _wanted(height: int, width: int, rules: ImageFormat) -> tuple[int, int]:
    """Return the height and width to scale to; never more than there is."""
    scale = min(1.0, rules.side / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fit(pixels: Pixels, rules: ImageFormat) -> Pixels:
    height, width = pixels.shape[:2]
    wanted = _wanted(height, width, rules)
    if wanted != (height, width):
        pixels = cast(Pixels, cv2.resize(pixels, wanted[::-1], interpolation=cv2.INTER_AREA))
    if rules.crop == "center":
        height, width = pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    return pixels


def perceptual_hash(pixels: Pixels) -> int:
    """Return the 64-bit DCT hash of RGB pixels: which low frequencies of brightness are above their median.

    0 where the image has too little texture for a hash to mean anything.
    """
    grey = cv2.cvtColor(cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    small = grey.astype(np.float32)
    if small.std() < TEXTURELESS:
        return 0
    frequencies = cv2.dct(small)[:8, :8].ravel()
    middle = np.partition(frequencies, (31, 32))[31:33].mean()
    return int.from_bytes(np.packbits(frequencies > middle).tobytes(), "big")

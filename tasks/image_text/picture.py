"""From the bytes of a downloaded file to the JPEG that is stored: sniffed, bounded, decoded strictly, upright, RGB."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from configs.image_text import ImageFormat
from storage.image_files import PNG_SIGNATURE, SOS, Segment, is_cut, jpeg_segments, png_has_all_rows
from tasks.image_text.colour_spaces import described, of_exif
from tasks.image_text.colours import UnconvertedError, jpeg_profile, to_srgb

cv2.setNumThreads(1)  # the processes are the parallelism
Image.MAX_IMAGE_PIXELS = None  # bounded here, by the header

Pixels = NDArray[np.uint8]
ORIENTATION = 0x0112
JPEG = b"\xff\xd8\xff"
SIGNATURES = {JPEG: "JPEG", PNG_SIGNATURE: "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP"}
"""Formats by their first bytes; Pillow looks closer, and is allowed that one format only."""
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])(?!\d)")
QUARTER_TURNS = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}
"""Turns to the left that bring an image of an EXIF orientation upright."""
MIRRORED = (2, 4, 5, 7)
"""EXIF orientations that are mirrored left to right besides."""
TEXTURELESS = 1.5
"""Grey levels of standard deviation below which a perceptual hash is noise."""
MOST_SCANS = 100
"""Of a JPEG. Encoders make about ten; every further one costs as much as another image of the size."""
PLACE_IN_MEMORY = re.compile(r" at 0x[0-9a-fA-F]+")


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
    profile: str = ""
    """Why its colour profile could not be applied; its pixels are then stored as if they were sRGB."""


@dataclass(slots=True)
class Decoded:
    """Upright RGB pixels, at least as large as wanted, and the upright image's size."""

    pixels: Pixels
    width: int
    height: int
    profile: str = ""


def make_picture(data: bytes, rules: ImageFormat) -> Picture:
    """Decode, check, scale and encode; `UnusableError` where that is not possible."""
    kind = kind_of(data)
    if kind is None:
        raise UnusableError("not_image", f"begins with {data[:12]!r}")
    image = _decode_jpeg(data, rules) if kind == "JPEG" else _decode_with_pillow(data, kind, rules)
    pixels = _fit(image.pixels, rules)
    height, width = pixels.shape[:2]
    jpeg = simplejpeg.encode_jpeg(pixels, rules.quality, "RGB", "420", fastdct=False)
    return Picture(jpeg, width, height, image.width, image.height, perceptual_hash(pixels), image.profile)


def kind_of(data: bytes) -> str | None:
    """Return the format of a file by its first bytes, as Pillow calls it; None for what is no image."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and b"avi" in data[8 : int.from_bytes(data[:4], "big")]:
        return "AVIF"
    return next((kind for start, kind in SIGNATURES.items() if data.startswith(start)), None)


def _decode_jpeg(data: bytes, rules: ImageFormat) -> Decoded:
    """Decode a JPEG, scaled by 1/2, 1/4 or 1/8 meanwhile where that is enough.

    Warnings of the decoder are errors: a truncated image would otherwise come out half grey.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, rules)
    except ValueError as error:
        raise _undecodable(error, data, "JPEG") from None
    except KeyError:  # a subsampling that simplejpeg has no name for, e.g. 4:4:1
        colours = ""
    if scans(data) > MOST_SCANS:
        raise UnusableError("decode_error", f"more than {MOST_SCANS} scans")
    if colours in ("", "CMYK", "YCCK"):
        return _decode_with_pillow(data, "JPEG", rules)
    wanted_height, wanted_width = _wanted(height, width, rules)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=wanted_height, min_width=wanted_width, strict=True)
    except ValueError as error:
        raise _undecodable(error, data, "JPEG") from None
    segments = _before_scans(data)
    pixels, profile = _in_srgb(pixels, data, segments, grey=colours == "Gray")
    orientation = jpeg_orientation(data, segments)
    if orientation != 1:
        pixels = np.rot90(pixels, QUARTER_TURNS.get(orientation, 0))
        pixels = np.ascontiguousarray(pixels[:, ::-1] if orientation in MIRRORED else pixels)
    width, height = (height, width) if orientation >= 5 else (width, height)
    return Decoded(pixels, width, height, profile)


def scans(data: bytes) -> int:
    """Return how many scans a JPEG has."""
    if data.count(b"\xff\xda") <= MOST_SCANS:  # no more than so many, thumbnails included
        return data.count(b"\xff\xda")
    return sum(segment.marker == SOS for segment in jpeg_segments(data))


def _before_scans(data: bytes) -> list[Segment]:
    segments = []
    for segment in jpeg_segments(data):
        if segment.marker == SOS:
            break
        segments.append(segment)
    return segments


def _in_srgb(pixels: Pixels, data: bytes, segments: Sequence[Segment], *, grey: bool) -> tuple[Pixels, str]:
    """Return RGB pixels of a JPEG as its colour profile has them, or as they are and why that is so."""
    try:
        profile = jpeg_profile(data, segments) or of_exif(_exif(data, segments))
        if not profile:
            return pixels, ""
        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if grey else pixels)
        return np.asarray(to_srgb(image, profile)), ""
    except UnconvertedError as error:
        return pixels, str(error)


def _undecodable(error: Exception, data: bytes, kind: str) -> UnusableError:
    """Return the status of what a decoder refused; its text holds nothing that changes from run to run."""
    text = PLACE_IN_MEMORY.sub("", " ".join(str(error).split()))
    cut = "remature" in text or "truncated" in text or is_cut(data, kind)
    return UnusableError("truncated" if cut else "decode_error", text)


def jpeg_orientation(data: bytes, segments: Sequence[Segment]) -> int:
    """Return the orientation that a JPEG's EXIF declares, or else its XMP; 1 (upright) where neither does."""
    declared = _exif(data, segments).get(ORIENTATION)
    if not isinstance(declared, int):
        contents = [data[start:end] for marker, start, end in segments if marker == 0xE1]
        found = next((XMP_ORIENTATION.search(content) for content in contents if content.startswith(XMP)), None)
        declared = int(found[1]) if found else 1
    return declared if 1 <= declared <= 8 else 1


def _exif(data: bytes, segments: Sequence[Segment]) -> Image.Exif:
    """Return the EXIF of a JPEG; empty where there is none, or where it is damaged."""
    exif = Image.Exif()
    contents = (data[start:end] for marker, start, end in segments if marker == 0xE1)
    content = next((content for content in contents if content.startswith(EXIF)), b"")
    try:
        exif.load(content)
        exif.get(ORIENTATION)  # what stands there is read only now
    except Exception:  # Pillow raises what it likes on damaged metadata, which turns nothing
        return Image.Exif()
    return exif


def _decode_with_pillow(data: bytes, kind: str, rules: ImageFormat) -> Decoded:
    """Decode the first frame, transparency on white."""
    try:
        image: Any = Image.open(io.BytesIO(data), formats=(kind,))
    except UnidentifiedImageError:
        cut = is_cut(data, kind)
        raise UnusableError("truncated" if cut else "not_image", f"begins with {data[:12]!r}") from None
    except Exception as error:  # Pillow's readers raise what they like on damaged headers
        raise _undecodable(error, data, kind) from None
    width, height = image.size
    _check_size(width, height, rules)
    try:
        image.load()
        profile, undescribed = _profile(image, data, kind)
        image, unconverted = _to_rgb(ImageOps.exif_transpose(image), profile)
    except Exception as error:
        raise _undecodable(error, data, kind) from None
    if is_cut(data, kind) if kind in ("GIF", "AVIF") else kind == "PNG" and not _is_whole_png(data):
        raise UnusableError("truncated", "ends before it is whole")
    return Decoded(np.asarray(image), image.width, image.height, undescribed or unconverted)


def _profile(image: Any, data: bytes, kind: str) -> tuple[bytes, str]:
    """Return the colour profile of an image, be it whole or described, and why there is none where there should be."""
    try:
        return image.info.get("icc_profile") or (b"" if image.mode == "CMYK" else _described(image, data, kind)), ""
    except UnconvertedError as error:
        return b"", str(error)


def _described(image: Any, data: bytes, kind: str) -> bytes:
    try:
        exif = image.getexif()
    except Exception:  # damaged metadata, see `_exif`
        exif = Image.Exif()
    return described(data, kind, exif)


def _is_whole_png(data: bytes) -> bool:
    """Whether a PNG goes to its end and holds all rows; what is missing comes out black."""
    return not is_cut(data, "PNG") and png_has_all_rows(data)


def _to_rgb(image: Any, profile: bytes) -> tuple[Any, str]:
    """Return an image as RGB in sRGB, and why its colour profile was not applied where it was not."""
    if image.mode.startswith("I"):  # 16 bits of grey, which a plain conversion would clip
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    transparent = "A" in image.getbands() or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    image = image.convert("RGBA") if transparent else image
    alpha = image.getchannel("A") if transparent else None
    plain = image if image.mode == "CMYK" else image.convert("L" if grey else "RGB")
    colours, unconverted = plain.convert("RGB"), ""
    if profile:
        try:
            colours = to_srgb(plain, profile)
        except UnconvertedError as error:
            unconverted = str(error)
    if alpha is not None:
        colours.putalpha(alpha)
        colours = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return colours, unconverted


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

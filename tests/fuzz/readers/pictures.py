"""Images of the web: PNG by its chunks, JPEG by its segments, and all other formats by their bytes."""

from __future__ import annotations

import io
import zlib
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageCms

from configs.image_text import ImageFormat
from tasks.image_text.in_time import picture_in_time
from tasks.image_text.picture import UnusableError
from tests.fuzz.case import Files, Reader
from tests.fuzz.mutate import mutate_bytes, packed, some

RULES = ImageFormat(side=32, min_side=1, max_aspect=1000)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
Chunks = list[tuple[bytes, bytes]]


def _read(given: Path, made: Path) -> object:
    (path,) = given.iterdir()
    try:
        return picture_in_time(path.read_bytes(), RULES, 4.0)
    except UnusableError as error:  # a status, as it stands in a shard's table
        return error.status


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _pixels(mode: str) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 13, 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert("RGB").convert(mode)


@cache
def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# -- PNG ----------------------------------------------------------------------------------------------------------


@cache
def _pngs() -> tuple[Chunks, ...]:
    plain = [_encoded(_pixels(mode), "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")]
    exif = Image.Exif()
    exif[0x0112] = 6
    rich = _encoded(_pixels("RGB"), "PNG", icc_profile=_srgb(), exif=exif, transparency=(1, 2, 3), dpi=(72, 72))
    moving = _encoded(_pixels("RGB"), "PNG", save_all=True, append_images=[_pixels("RGB").rotate(90, expand=False)])
    return tuple(chunks_of(data) for data in (*plain, rich, moving))


def chunks_of(data: bytes) -> Chunks:
    """Return kind and content of a PNG's chunks."""
    found, start = [], 8
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "big")
        found.append((data[start + 4 : start + 8], data[start + 8 : start + 8 + length]))
        start += 12 + length
    return found


def mutate_png(random: Random, chunks: Chunks) -> bytes:
    """Return a PNG with changed, missing, repeated or further chunks; most checksums hold."""
    chunks = list(chunks)
    for _ in some(random, 4):
        _change_chunks(random, chunks)
    data = SIGNATURE
    for kind, content in chunks:
        length = len(content) if random.random() < 0.99 else int.from_bytes(packed(random, ">I"), "big")
        checksum = zlib.crc32(kind + content) if random.random() < 0.99 else 0
        data += length.to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")
    return mutate_bytes(random, data) if random.random() < 0.1 else data


def _change_chunks(random: Random, chunks: Chunks) -> None:
    if not chunks:
        return
    at = random.randrange(len(chunks))
    kind, content = chunks[at]
    chance = random.random()
    if chance < 0.15 and chunks[0][0] == b"IHDR":
        chunks[0] = b"IHDR", _header(random, chunks[0][1])
    elif chance < 0.4:
        chunks[at] = kind, mutate_bytes(random, content)
    elif chance < 0.6:
        _change_rows(random, chunks)
    elif chance < 0.7:
        del chunks[at]
    elif chance < 0.8:
        chunks.insert(random.randrange(len(chunks) + 1), (kind, content))
    elif chance < 0.85:
        chunks[at] = random.choice((b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"fdAT", b"abcd", b"\0\0\0\0")), content
    else:
        chunks.insert(random.randrange(len(chunks) + 1), _further(random))


def _header(random: Random, header: bytes) -> bytes:
    at = random.randrange(7)
    if at < 2:
        return header[: 4 * at] + packed(random, ">I") + header[4 * at + 4 :]
    return header[: 6 + at] + packed(random, "B") + header[7 + at :]


def _change_rows(random: Random, chunks: Chunks) -> None:
    """Change what is compressed, or cut it into several chunks."""
    places = [place for place, (kind, _) in enumerate(chunks) if kind == b"IDAT"]
    if not places:
        return
    content = chunks[places[0]][1]
    try:
        rows = zlib.decompress(content)
    except zlib.error:
        return
    change = random.choice((
        lambda: rows[: random.randrange(len(rows) + 1)], lambda: rows * 3, lambda: mutate_bytes(random, rows),
        lambda: rows + bytes(random.choice((1, 1, 1, 3_000_000))), lambda: rows,
    ))  # fmt: skip
    content = zlib.compress(change(), random.randrange(1, 4))
    cut = random.randrange(len(content) + 1)
    chunks[places[0] : places[0] + 1] = [(b"IDAT", content[:cut]), (b"IDAT", content[cut:])]


@cache
def _bomb() -> bytes:
    return zlib.compress(bytes(50_000_000))


def _further(random: Random) -> tuple[bytes, bytes]:
    return random.choice((
        (b"tRNS", random.randbytes(random.choice((0, 1, 2, 6, 256)))),
        (b"PLTE", random.randbytes(random.choice((0, 3, 4, 768, 771)))),
        (b"iCCP", b"name\0\0" + zlib.compress(mutate_bytes(random, _srgb()), 1)),
        (b"iCCP", b"name\0\0" + _bomb()), (b"zTXt", b"name\0\0" + _bomb()),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + random.randbytes(20)),
        (b"eXIf", mutate_bytes(random, b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")),
        (b"gAMA", packed(random, ">I")), (b"sRGB", packed(random, "B")), (b"pHYs", random.randbytes(9)),
        (b"acTL", packed(random, ">I") + packed(random, ">I")), (b"fcTL", random.randbytes(26)), (b"IEND", b""),
    ))  # fmt: skip


def _make_png(random: Random) -> Files:
    return {"a.png": mutate_png(random, random.choice(_pngs()))}


# -- JPEG ---------------------------------------------------------------------------------------------------------

Segments = list[tuple[int, bytes]]
"""Marker and content of each segment; that of the start of scan ends with the compressed data."""


@cache
def _jpegs() -> tuple[Segments, ...]:
    exif = Image.Exif()
    exif[0x0112] = 6
    made = [
        _encoded(_pixels("RGB"), "JPEG", quality=80, exif=exif, icc_profile=_srgb()),
        _encoded(_pixels("RGB"), "JPEG", progressive=True, subsampling=0),
        _encoded(_pixels("L"), "JPEG", optimize=True),
        _encoded(_pixels("CMYK"), "JPEG"),
        _encoded(_pixels("RGB"), "JPEG", restart_marker_blocks=1, comment=b"a comment"),
    ]
    return tuple(map(_segments, made))


def _segments(data: bytes) -> Segments:
    found, start = [], 2
    while start < len(data) and data[start + 1] != 0xD9:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        content = data[start + 4 : end]
        if data[start + 1] == 0xDA:
            stop = end
            while data[stop] != 0xFF or data[stop + 1] == 0 or 0xD0 <= data[stop + 1] <= 0xD7:
                stop += 1
            content, end = data[start + 2 : stop], stop
        found.append((data[start + 1], content))
        start = end
    return found


def _make_jpeg(random: Random) -> Files:
    segments = list(random.choice(_jpegs()))
    for _ in some(random, 4):
        _change_segments(random, segments)
    data = b"\xff\xd8"
    for marker, content in segments:
        data += b"\xff" * random.choice((1,) * 30 + (2, 40)) + bytes([marker])
        if marker != 0xDA and not 0xD0 <= marker <= 0xD9:
            content = min(len(content) + 2, 0xFFFF).to_bytes(2, "big") + content[:0xFFFD]
        data += content
    data += b"\xff\xd9" if random.random() < 0.95 else b""
    return {"a.jpg": mutate_bytes(random, data) if random.random() < 0.15 else data}


def _change_segments(random: Random, segments: Segments) -> None:
    if not segments:
        return
    at = random.randrange(len(segments))
    marker, content = segments[at]
    chance = random.random()
    if chance < 0.45:
        segments[at] = marker, mutate_bytes(random, content)
    elif chance < 0.55:
        del segments[at]
    elif chance < 0.65:
        copies = 1 if marker != 0xDA else random.choice((1, 3, 150))
        segments[at:at] = [(marker, content)] * copies
    elif chance < 0.7:
        segments[at] = random.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xCC, 0xDB, 0xDC, 0xDD, 0xE1, 0xE2)), content
    elif chance < 0.8:
        frames = [place for place, (kind, _) in enumerate(segments) if 0xC0 <= kind <= 0xC2]
        for place in frames:
            frame = bytearray(segments[place][1])
            start = random.choice((0, 1, 3, 5, 6, 7, 8, 9))
            number = packed(random, ">H" if start in (1, 3) else "B")
            frame[start : start + len(number)] = number
            segments[place] = segments[place][0], bytes(frame)
    else:
        segments.insert(at, _further_segment(random))


def _further_segment(random: Random) -> tuple[int, bytes]:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    icc = b"ICC_PROFILE\0" + packed(random, "B") + packed(random, "B")
    profile = mutate_bytes(random, _srgb()) if random.random() < 0.5 else _srgb()
    return random.choice((
        (0xE1, exif), (0xE1, mutate_bytes(random, exif)), (0xE1, xmp), (0xE1, mutate_bytes(random, xmp)),
        (0xE2, icc + profile), (0xE2, b"ICC_PROFILE\0\1\1" + profile), (0xE2, icc), (0xE2, b"ICC_PROFILE\0"),
        (0xEE, b"Adobe" + random.randbytes(7)), (0xFE, random.randbytes(30)), (0xDD, packed(random, ">H")),
        (0xE0, b"JFIF\0" + random.randbytes(9)), (0xD8, b""), (0x01, b""),
    ))  # fmt: skip


# -- others -------------------------------------------------------------------------------------------------------


@cache
def _others() -> tuple[tuple[str, bytes], ...]:
    picture, turned = _pixels("RGB"), _pixels("RGB").rotate(180)
    film = {"save_all": True, "append_images": [turned]}
    return (
        ("gif", _encoded(picture.quantize(16), "GIF")), ("gif", _encoded(picture, "GIF", **film)),
        ("webp", _encoded(picture, "WEBP")), ("webp", _encoded(_pixels("RGBA"), "WEBP", lossless=True)),
        ("webp", _encoded(picture, "WEBP", icc_profile=_srgb(), **film)),
        ("bmp", _encoded(picture, "BMP")), ("bmp", _encoded(_pixels("P"), "BMP")), ("bmp", _encoded(_pixels("1"),
                                                                                                    "BMP")),
        ("avif", _encoded(picture, "AVIF", speed=10)), ("avif", _encoded(_pixels("L"), "AVIF", speed=10)),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"), ("tif", _encoded(picture, "TIFF")),
        ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), ("ico", _encoded(picture, "ICO")),
    )  # fmt: skip


def _make_other(random: Random) -> Files:
    ending, data = random.choice(_others())
    return {f"a.{ending}": mutate_bytes(random, data, [other for _, other in _others()])}


CODE = ("tasks.image_text.in_time", "tasks.image_text.picture")
READERS = (
    Reader("png", CODE, _make_png, _read),
    Reader("jpeg", CODE, _make_jpeg, _read),
    Reader("other_image", CODE, _make_other, _read),
)

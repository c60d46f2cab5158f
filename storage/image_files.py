"""How image files are built: whether one is whole, and what stands in it beside pixels. Nothing is decoded here.

Decoders disagree about files that end too early: some raise, some leave the rest black, some show whatever lay in
memory. A file's own container says how long it should be.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = 13
"""Bytes of a header's content."""
PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel, by the colour type of a PNG."""
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps between columns and rows, of each pass of an interlaced PNG."""
INFLATED_AT_ONCE = 2**20
BMP_HEADERS = [bytes([size, 0, 0, 0]) for size in (12, 16, 40, 52, 56, 64, 108, 124)]
AVIF_BOXES = tuple(b"ftyp meta moov mdat idat free skip uuid moof mfra sidx styp".split())
SOS, EOI = 0xDA, 0xD9
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
"""Markers of a JPEG that stand alone."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segment that says how large a JPEG is."""


class Segment(NamedTuple):
    """A marker segment of a JPEG and where its content lies."""

    marker: int
    start: int
    end: int


def is_cut(data: bytes, kind: str) -> bool:
    """Whether a file of this kind (as Pillow names it) ends before its own container says that it does."""
    return _CUT[kind](data)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each chunk that is whole, the one that ends the file included."""
    start, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        if end + 4 > len(data):
            return
        kind = data[start + 4 : start + 8]
        yield kind, start + 8, end
        start = end + 4


def png_has_all_rows(data: bytes) -> bool:
    """Whether the compressed stream of a PNG holds all of its rows; it may end properly and hold fewer.

    False, too, for a stream that cannot be inflated. Memory stays flat whatever the header claims.
    """
    chunks = list(png_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or chunks[0][2] - chunks[0][1] != PNG_HEADER:
        return False
    missing = _png_bytes(data[chunks[0][1] : chunks[0][2]])
    inflate = zlib.decompressobj()
    try:
        for kind, start, end in chunks:
            rest = data[start:end] if kind == b"IDAT" else b""
            while rest and missing > 0:
                missing -= len(inflate.decompress(rest, INFLATED_AT_ONCE))
                rest = inflate.unconsumed_tail
        return missing <= len(inflate.flush() if missing > 0 else b"")
    except zlib.error:
        return False


def _png_bytes(header: bytes) -> int:
    """Return how many bytes the rows of a PNG are, each with the byte that says how it was filtered."""
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    depth, colour, interlaced = header[8], header[9], header[12]
    bits = depth * PNG_SAMPLES.get(colour, 4)
    total = 0
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box of an AVIF between two places, to the first that is none."""
    while start + 8 <= end:
        size, header = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        size = size or end - start
        if size < header or start + size > end:
            return
        yield data[start + 4 : start + 8], start + header, start + size
        start += size


def jpeg_segments(data: bytes) -> Iterator[Segment]:
    """Yield the marker segments of a JPEG, to the end or to what is none; fill bytes before markers are passed over.

    Entropy-coded data after a start of scan is passed over as well, so every scan is seen.
    """
    position = 2
    while position + 1 < len(data) and data[position] == 0xFF:
        while data[position : position + 1] == b"\xff":
            position += 1
        marker = data[position] if position < len(data) else EOI
        position += 1
        if marker == EOI:
            return
        if marker in WITHOUT_LENGTH:
            continue
        end = position + int.from_bytes(data[position : position + 2], "big")
        if end < position + 2 or end > len(data):
            return
        yield Segment(marker, position + 2, end)
        position = _next_marker(data, end) if marker == SOS else end


def _next_marker(data: bytes, position: int) -> int:
    """Return where the first marker after entropy-coded data stands; stuffed bytes and restarts belong to the data."""
    while (position := data.find(b"\xff", position)) >= 0 and position + 1 < len(data):
        following = data[position + 1]
        if following not in (0x00, 0xFF) and not 0xD0 <= following <= 0xD7:
            return position
        position += 1 if following == 0xFF else 2
    return len(data)


def _jpeg_is_cut(data: bytes) -> bool:
    segments = list(jpeg_segments(data))
    scans = [segment for segment in segments if segment.marker == SOS]
    if scans:
        return data.find(b"\xff\xd9", scans[-1].end) < 0
    end = segments[-1].end if segments else 2
    return data[end : end + 1] in (b"", b"\xff")  # something else is damage


def _png_is_cut(data: bytes) -> bool:
    return next((False for kind, _, _ in png_chunks(data) if kind == b"IEND"), True)


def _gif_is_cut(data: bytes) -> bool:
    """Walk the blocks of a GIF to its trailer."""
    position = 13 + _gif_colours(data, 10)
    while position < len(data):
        match data[position]:
            case 0x3B:
                return False
            case 0x21:
                position = _gif_after_blocks(data, position + 2)
            case 0x2C:
                position = _gif_after_blocks(data, position + 11 + _gif_colours(data, position + 9))
            case 0:
                position += 1  # some writers leave one between blocks
            case _:
                return False  # no GIF block: damaged rather than cut
    return True


def _gif_colours(data: bytes, flags: int) -> int:
    """Return the bytes of the colour table that the flags at this position declare."""
    declared = data[flags] if flags < len(data) else 0
    return 3 << ((declared & 7) + 1) if declared & 0x80 else 0


def _gif_after_blocks(data: bytes, position: int) -> int:
    while position < len(data) and data[position]:
        position += 1 + data[position]
    return position + 1


def _riff_is_cut(data: bytes) -> bool:
    return len(data) < 8 + int.from_bytes(data[4:8], "little")


def _bmp_is_cut(data: bytes) -> bool:
    """Whether a BMP has fewer bytes than it says; other files begin with these two letters, too."""
    return data[14:18] in BMP_HEADERS and len(data) < int.from_bytes(data[2:6], "little")


def _avif_is_cut(data: bytes) -> bool:
    """Walk the boxes of an AVIF to the end, or to what is none; a box of length 0 goes to the end, wherever that is."""
    position, kinds = 0, set()
    while position < len(data):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size == 0:
            return False
        if size < 8 or (len(kind) == 4 and kind not in AVIF_BOXES):
            break  # what follows a file is no part of it
        kinds.add(kind)
        position += size
    return position > len(data) or not {b"meta", b"moov"} & kinds or not {b"mdat", b"idat"} & kinds


_CUT: dict[str, Callable[[bytes], bool]] = {
    "JPEG": _jpeg_is_cut,
    "PNG": _png_is_cut,
    "GIF": _gif_is_cut,
    "WEBP": _riff_is_cut,
    "BMP": _bmp_is_cut,
    "AVIF": _avif_is_cut,
}

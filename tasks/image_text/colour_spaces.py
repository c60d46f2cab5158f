"""Colours that image files describe without a profile, by numbers or by name, as the profiles that mean the same."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from storage.image_files import boxes, png_chunks
from tasks.image_text.colours import UnconvertedError

Point = tuple[float, float]


class Primaries(NamedTuple):
    """Chromaticities x and y of white and of the three colours."""

    white: Point
    red: Point
    green: Point
    blue: Point


D65, C = (0.3127, 0.3290), (0.310, 0.316)
SRGB = Primaries(D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
ADOBE_RGB = Primaries(D65, (0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
ADOBE_GAMMA = 563 / 256
NTSC = Primaries(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
PRIMARIES = {
    1: SRGB,
    2: SRGB,
    4: Primaries(C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Primaries(D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: NTSC,
    7: NTSC,
    8: Primaries(C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: Primaries(D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Primaries((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Primaries(D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: Primaries(D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""By their number in ITU-T H.273; where nothing is specified, sRGB is meant."""
CURVES = {**dict.fromkeys((1, 2, 6, 13, 14, 15)), 4: 2.2, 5: 2.8, 8: 1.0}
"""Exponents of transfer characteristics by their number in H.273; None for those that are shown like that of sRGB."""
NAMED_CURVES = {16: "PQ", 18: "HLG"}
SAME_POINT = 0.003
SAME_GAMMA = 0.05
"""Share by which an exponent may differ from 2.2 and still mean the curve of sRGB, as in libpng."""
EXPONENTS = (0.1, 10.0)
SAMPLES = 4096
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
EXIF_IFD, COLOR_SPACE, INTEROPERABILITY = 0x8769, 0xA001, 0xA005
BMP_V5, BMP_PROFILE_INSIDE, BMP_PROFILE_ELSEWHERE = 124, b"DEBM", b"KNIL"


def described(data: bytes, kind: str, exif: Any) -> bytes:
    """Return the profile of what a file of a kind (as Pillow names it) says of its colours; empty where that is sRGB.

    `UnconvertedError` where it says something that has no profile.
    """
    return _READERS.get(kind, lambda data: b"")(data) or of_exif(exif)


def of_exif(exif: Any) -> bytes:
    """Return the profile that EXIF means: Adobe RGB by its number, or by the interoperability index of cameras."""
    try:
        space = exif.get_ifd(EXIF_IFD).get(COLOR_SPACE)
        index = exif.get_ifd(INTEROPERABILITY).get(1)
    except Exception:  # Pillow raises what it likes on damaged metadata, which says nothing of colours
        return b""
    by_index = str(index).strip("\0 ") == "R03" and space != 1
    return profile(ADOBE_RGB, ADOBE_GAMMA) if space == 2 or by_index else b""


def _of_png(data: bytes) -> bytes:
    found: dict[bytes, bytes] = {}
    for kind, start, end in png_chunks(data):
        if kind == b"IDAT":
            break
        found[kind] = data[start:end]
    if len(found.get(b"cICP", b"")) == 4:
        return of_code_points(*found[b"cICP"][:2])
    if b"iCCP" in found:
        raise UnconvertedError("it is damaged")  # or Pillow would have found it
    gamma, points = found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    if b"sRGB" in found or not (len(gamma) == 4 or len(points) == 32):
        return b""
    exponent = _exponent(int.from_bytes(gamma, "big")) if len(gamma) == 4 else None
    if len(points) != 32:
        return profile(SRGB, exponent)
    x = [value / 100_000 for value in struct.unpack(">8I", points)]
    return profile(Primaries((x[0], x[1]), (x[2], x[3]), (x[4], x[5]), (x[6], x[7])), exponent)


def _exponent(stored: int) -> float:
    exponent = 100_000 / stored if stored else 0.0
    if not EXPONENTS[0] <= exponent <= EXPONENTS[1]:
        raise UnconvertedError(f"its gamma is {stored / 100_000:g}")
    return exponent


def _of_avif(data: bytes) -> bytes:
    inside = [(0, len(data))]
    for wanted, skipped in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        inside = [(b + skipped, e) for start, end in inside for kind, b, e in boxes(data, start, end) if kind == wanted]
    for start, end in inside:
        for kind, begin, _ in boxes(data, start, end):
            if kind == b"colr" and data[begin : begin + 4] == b"nclx":
                return of_code_points(*struct.unpack_from(">HH", data[begin : begin + 8] + bytes(8), 4))
    return b""


def of_code_points(primaries: int, curve: int) -> bytes:
    """Return the profile of colour primaries and transfer characteristics as H.273 numbers them."""
    if curve not in CURVES:
        raise UnconvertedError(f"its values follow the curve {NAMED_CURVES.get(curve, curve)}")
    if primaries not in PRIMARIES:
        raise UnconvertedError(f"its primaries have the number {primaries}")
    return profile(PRIMARIES[primaries], CURVES[curve])


def _of_bmp(data: bytes) -> bytes:
    if int.from_bytes(data[14:18], "little") != BMP_V5 or len(data) < 14 + BMP_V5:
        return b""
    if data[70:74] == BMP_PROFILE_ELSEWHERE:
        raise UnconvertedError("it lies in another file")
    if data[70:74] != BMP_PROFILE_INSIDE:
        return b""
    begin, size = struct.unpack_from("<II", data, 126)
    if not size or 14 + begin + size > len(data):
        raise UnconvertedError("it is damaged")
    return data[14 + begin : 14 + begin + size]


_READERS: dict[str, Callable[[bytes], bytes]] = {"PNG": _of_png, "AVIF": _of_avif, "BMP": _of_bmp}


@lru_cache(maxsize=32)
def profile(primaries: Primaries, exponent: float | None) -> bytes:
    """Return the ICC profile of primaries and of values that are light to 1/exponent, or as in sRGB where it is None.

    Empty where that is sRGB.
    """
    if np.allclose(primaries, SRGB, atol=SAME_POINT) and (exponent is None or abs(exponent / 2.2 - 1) <= SAME_GAMMA):
        return b""
    matrix = _to_d50(primaries)
    values = np.linspace(0, 1, SAMPLES)
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = light if exponent is None else values**exponent
    curve = b"curv" + bytes(4) + struct.pack(">I", SAMPLES) + np.rint(light * 65535).astype(">u2").tobytes()
    tags = [b"XYZ " + bytes(4) + _fixed(column) for column in (D50, *matrix.T)]
    return _icc(dict(zip((b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ"), tags, strict=True)), curve)


def _to_d50(primaries: Primaries) -> Any:
    """Return the matrix from linear RGB to XYZ under D50."""
    points = np.array([(x, y, 1 - x - y) for x, y in primaries]).T
    try:
        white = points[:, 0] * (1 / primaries.white[1])
        matrix = points[:, 1:] * np.linalg.solve(points[:, 1:], white)
        adapted = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ D50 / (BRADFORD @ white)) @ BRADFORD @ matrix
    except (ZeroDivisionError, np.linalg.LinAlgError):
        adapted = np.full((3, 3), np.nan)
    if not np.isfinite(adapted).all() or np.abs(adapted).max() > 10:
        raise UnconvertedError("its primaries are no colours")
    return adapted


def _fixed(values: Any) -> bytes:
    return np.rint(np.asarray(values) * 65536).astype(">i4").tobytes()


def _icc(tags: dict[bytes, bytes], curve: bytes) -> bytes:
    """Return a profile of version 2.4 for a display, whose three colours have one curve."""
    header = bytes(8) + b"\x02\x40\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28) + _fixed(D50) + bytes(48)
    begin = 128 + 4 + 12 * (len(tags) + 3)
    listing, body = struct.pack(">I", len(tags) + 3), b""
    for name, content in tags.items():
        listing += name + struct.pack(">II", begin + len(body), len(content))
        body += content
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        listing += name + struct.pack(">II", begin + len(body), len(curve))
    whole = header + listing + body + curve
    return struct.pack(">I", len(whole)) + whole[4:]

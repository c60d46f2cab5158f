"""Colour profiles for tests, written by the ICC's format, and what they mean in plain numpy."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

D50 = (0.9642, 1.0, 0.8249)
P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
"""From linear Display P3 to XYZ under D50; its curve is that of sRGB, taken as a power of 2.2 here."""
ADOBE = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def rgb_profile(matrix: NDArray[np.float64], gamma: float) -> bytes:
    """Return a profile of these primaries and this curve."""
    columns = {f"{name}XYZ".encode(): _xyz(matrix[:, n]) for n, name in enumerate("rgb")}
    return _profile(b"RGB ", b"XYZ ", columns | {f"{name}TRC".encode(): _curve(gamma) for name in "rgb"})


def grey_profile(gamma: float) -> bytes:
    """Return a profile of grey values."""
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """Return a profile whose inks are all brownish, so that nobody can mistake it for none."""
    corners = []
    for n in range(16):
        c, m, y, k = (n >> 3) & 1, (n >> 2) & 1, (n >> 1) & 1, n & 1
        lightness = 255 * (1 - 0.2 * c - 0.25 * m - 0.05 * y) * (1 - 0.9 * k)
        corners += [round(lightness), 128 + 30 * m, 128 + 40 * y + 20 * c]
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(corners) + ramp * 3
    return _profile(b"CMYK", b"Lab ", {b"A2B0": table})


def to_srgb(values: NDArray[np.uint8], matrix: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    """Return what RGB values of `rgb_profile` are in sRGB."""
    linear = (values / 255.0) ** gamma @ matrix.T @ np.linalg.inv(SRGB).T
    return srgb_curve(linear.clip(0, 1))


def srgb_curve(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return light as sRGB's values from 0 to 255."""
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _profile(space: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    tags = {b"desc": _text(b"desc"), b"cprt": _text(b"text"), b"wtpt": _xyz(D50), **tags}
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    header = bytes(8) + b"\x02\x40\0\0" + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    header += b"".join(struct.pack(">i", round(v * 65536)) for v in D50) + bytes(48)
    listing, body = struct.pack(">I", len(tags)), b""
    begin = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        listing += name + struct.pack(">II", begin + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    whole = header + listing + body
    return struct.pack(">I", len(whole)) + whole[4:]


def _text(kind: bytes) -> bytes:
    if kind == b"text":
        return b"text" + bytes(4) + b"none\0"
    return b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(4 + 4 + 2 + 1 + 67)


def _xyz(values: NDArray[np.float64] | tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))

"""Masks from PNG images, by colour."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.files import unreadable
from storage.image_files import png_has_all_rows

LARGEST = 2**28
"""Pixels of an image; what claims to have more would fill the memory."""
CHUNK_FRAME = 12
"""Bytes around the data of a chunk: length, kind and checksum."""

Palette = Mapping[int, tuple[int, ...]]


def read_mask(path: Path, green: int) -> NDArray[np.bool_]:
    """Return the pixels of a PNG whose green channel has this value; `ValueError` (what is wrong, no path) otherwise.

    Grey, palette, RGB and RGBA images are taken by colour, a grey value being its own green. An image holds at most one
    colour that burns and one that does not: with a third, or with two of a kind, nobody knows what is meant.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(unreadable(error)) from None
    _require_whole(data)
    if not png_has_all_rows(data):  # before there is memory for them
        raise ValueError("cannot be decoded as PNG (it is truncated: its compressed stream ends before all rows)")
    pixels, palette = _decode(path)
    return _by_colour(_one_number_per_pixel(pixels), pixels, palette, green)


def _require_whole(data: bytes) -> None:
    """Check every chunk against its checksum: GDAL fills what is missing with whatever lies in memory."""
    start, kind = 8, b""
    while kind != b"IEND":
        end = start + CHUNK_FRAME + int.from_bytes(data[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        checksum = int.from_bytes(data[end - 4 : end], "big")
        if end > len(data) or zlib.crc32(data[start + 4 : end - 4]) != checksum:
            raise ValueError("cannot be decoded as PNG (it is cut off or damaged, or something else)")
        start = end


def _decode(path: Path) -> tuple[NDArray[np.uint8], Palette | None]:
    """Return pixels (H, W, channels) and the colours of a palette. GDAL takes a quarter of PIL's time."""
    import rasterio
    from rasterio.enums import ColorInterp
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(path, driver="PNG") as image,
        ):
            if image.dtypes[0] != "uint8":
                raise ValueError(f"has {image.dtypes[0]} pixels; write it with 8 bits per channel")
            if image.width * image.height > LARGEST:
                raise ValueError(f"has {image.height} x {image.width} pixels, more than an image of a fire has")
            palette = image.colormap(1) if image.colorinterp[0] == ColorInterp.palette else None
            bits = int(image.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
            pixels = np.empty((image.height, image.width, image.count), np.uint8)
            image.read(out=np.moveaxis(pixels, -1, 0))
    except RasterioError as error:
        text = " ".join(str(error.__cause__ or error).split()).replace(str(path), path.name)
        raise ValueError(f"cannot be decoded as PNG ({text})") from None
    if bits < 8 and palette is None:
        pixels *= np.uint8(255 // (2**bits - 1))
    return pixels, palette


def _one_number_per_pixel(pixels: NDArray[np.uint8]) -> NDArray[Any]:
    """Return (H, W) numbers that are equal where colours are."""
    channels = pixels.shape[2]
    if channels == 1:
        return pixels[..., 0]
    if channels == 3:
        wide = np.zeros((*pixels.shape[:2], 4), np.uint8)
        wide[..., :3] = pixels
        pixels = wide
    contiguous = np.ascontiguousarray(pixels)
    return contiguous.view(np.uint16 if channels == 2 else np.uint32)[..., 0]


def _by_colour(
    numbers: NDArray[Any], pixels: NDArray[np.uint8], palette: Palette | None, green: int
) -> NDArray[np.bool_]:
    first = numbers[0, 0]
    other = numbers != first
    positions = [0]
    flat = int(other.argmax())
    if other.flat[flat]:
        positions.append(flat)
        if not ((numbers == numbers.flat[flat]) == other).all():
            positions = np.unique(numbers, return_index=True)[1].tolist()
    width = numbers.shape[1]
    colours = [_colour(pixels[p // width, p % width], palette) for p in positions]
    burns = [(c[1] if len(c) >= 3 else c[0]) == green for c in colours]
    if len(set(colours)) == len(colours) <= 2 and sum(burns) <= 1 and sum(not b for b in burns) <= 1:
        if not any(burns):
            return np.zeros(numbers.shape, bool)
        return other if burns[-1] and len(burns) == 2 else ~other
    if palette is not None and len({c for c, b in zip(colours, burns, strict=True) if b}) <= 1:
        others = {c for c, b in zip(colours, burns, strict=True) if not b}
        if len(others) <= 1:  # several palette entries of one colour
            return np.isin(numbers, [numbers.flat[p] for p, b in zip(positions, burns, strict=True) if b])
    shown = ", ".join(str(c) for c in sorted(set(colours))[:5])
    raise ValueError(
        f"has the colours {shown}{' ...' if len(set(colours)) > 5 else ''}, where at most one with green {green} "
        "(burnt) and one other are expected; see decoding.fire_green"
    )


def _colour(pixel: NDArray[np.uint8], palette: Palette | None) -> tuple[int, ...]:
    if palette is None:
        return tuple(pixel.tolist())
    if int(pixel[0]) not in palette:
        raise ValueError(f"is damaged: it has pixels of colour {pixel[0]}, and a palette of {len(palette)}")
    return tuple(palette[int(pixel[0])][:3])

"""Decoded images in sRGB: embedded colour profiles are applied by LittleCMS, within bounds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from storage.image_files import Segment

LARGEST_PROFILE = 4 * 2**20
"""Bytes; profiles of printers have up to two million."""
SAME = 2
"""Levels of 255 by which a profile that calls itself sRGB may differ from sRGB; such images are left as they are."""
JPEG_PROFILE = b"ICC_PROFILE\0"
MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
"""Pillow's modes by what a profile says that it describes."""


class UnconvertedError(Exception):
    """A profile that cannot be applied, with the reason; the pixels are good."""


def jpeg_profile(data: bytes, segments: Sequence[Segment]) -> bytes:
    """Return the colour profile of a JPEG, put together from its segments; empty where there is none."""
    parts = [data[start:end] for marker, start, end in segments if marker == 0xE2]
    parts = sorted(part for part in parts if part.startswith(JPEG_PROFILE) and len(part) > 14)
    if parts and (len(parts) != parts[0][13] or [part[12] for part in parts] != list(range(1, len(parts) + 1))):
        raise UnconvertedError("parts of it are missing")
    return b"".join(part[14:] for part in parts)


def to_srgb(image: Any, profile: bytes) -> Any:
    """Return an image of mode L, RGB or CMYK as RGB in sRGB; `UnconvertedError` where its profile does not allow it."""
    if len(profile) > LARGEST_PROFILE:
        raise UnconvertedError(f"it has {len(profile)} bytes")
    transform = _transform(profile, image.mode)
    if image.mode == "L" and getattr(transform, "input_mode", "L") == "RGB":
        image = image.convert("RGB")
    return image.convert("RGB") if transform is None else ImageCms.applyTransform(image, transform)


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """Return what turns pixels into sRGB, None where they are in it already. Many threads may use one at once."""
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        described = MODES.get(found.profile.xcolor_space.strip(), "")
        if described != mode and (described, mode) != ("RGB", "L"):
            space = found.profile.xcolor_space.strip()
            raise UnconvertedError(f"it is one of {space} for pixels of {'grey' if mode == 'L' else mode}")
        transform = ImageCms.buildTransform(
            found, ImageCms.createProfile("sRGB"), described, "RGB", flags=ImageCms.Flags.NOCACHE
        )
        return None if _changes_nothing(transform, described) else transform
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        raise UnconvertedError("it is damaged") from None


def _changes_nothing(transform: Any, mode: str) -> bool:
    """Whether colours from all over come out as they went in."""
    if mode == "CMYK":
        return False
    steps = np.arange(0, 256, 15).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    pixels = Image.fromarray(colours if mode == "RGB" else np.ascontiguousarray(colours[..., 0]))
    before, after = (
        np.asarray(p).astype(int) for p in (pixels.convert("RGB"), ImageCms.applyTransform(pixels, transform))
    )
    return int(np.abs(after - before).max()) <= SAME

"""Pixels of the loader: the middle or the whole of an image, at the size asked for, like Pillow's to the eye."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from configs.vision_language import Fit
from storage.image_decoding import FITS, Pixels, decode_square
from tests.conftest import shared_data
from tests.image_text.pictures import encoded, scenery


def with_pillow(jpeg: bytes, side: int, fit: Fit) -> Pixels:
    """Return what Pillow makes of it."""
    image: Image.Image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    width, height = image.size
    if fit == "crop":
        least = min(image.size)
        left, top = (width - least) // 2, (height - least) // 2
        box = (left, top, left + least, top + least)
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((side - width) // 2, (side - height) // 2))
    return np.asarray(canvas)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("side", [40, 48, 90, 100, 130])
@pytest.mark.parametrize("size", [(120, 90), (90, 121), (90, 90), (400, 90)])
def test_pixels_are_those_of_pillow(size: tuple[int, int], side: int, fit: Fit) -> None:
    jpeg = encoded(scenery(*size, seed=3), quality=95)
    found = decode_square(jpeg, side, fit)
    assert found.shape == (side, side, 3)
    assert found.dtype == np.uint8
    difference = np.abs(found.astype(int) - with_pillow(jpeg, side, fit))
    assert np.median(difference) <= 3
    assert difference.mean() < 4


def test_at_its_own_size_an_image_is_decoded_to_the_bit() -> None:
    jpeg = encoded(scenery(90, 90, seed=3), quality=95)
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    for fit in FITS:
        assert np.array_equal(decode_square(jpeg, 90, fit), pixels)


def test_pads_are_black_and_even() -> None:
    jpeg = encoded(Image.new("RGB", (80, 40), (200, 100, 50)), quality=95)
    found = decode_square(jpeg, 80, "pad")
    assert not found[:20].any()
    assert not found[60:].any()
    assert np.abs(found[20:60].astype(int) - [200, 100, 50]).max() <= 3


def test_grey_images_become_rgb() -> None:
    found = decode_square(encoded(scenery().convert("L"), quality=95), 64, "crop")
    assert (found == found[..., :1]).all()
    assert found.std() > 5


@pytest.mark.parametrize("side", [16, 48, 90])
@pytest.mark.parametrize("fit", FITS)
def test_no_cut_passes(side: int, fit: Fit) -> None:
    jpeg = encoded(scenery(), quality=95)
    for kept in (0, 1, 100, len(jpeg) // 2, len(jpeg) - 2):
        with pytest.raises(ValueError, match=r"."):
            decode_square(jpeg[:kept], side, fit)
    for other in (b"<html>not found</html>", encoded(scenery(), "PNG")):
        with pytest.raises(ValueError, match=r"."):
            decode_square(other, side, fit)


def test_real_photographs_look_like_those_of_pillow() -> None:
    folder = shared_data("image_text") / "images"
    for path in sorted(folder.iterdir())[:12]:
        jpeg = path.read_bytes()
        for fit in FITS:
            found, wanted = decode_square(jpeg, 224, fit), with_pillow(jpeg, 224, fit)
            error = np.mean((found.astype(float) - wanted) ** 2)
            assert 10 * np.log10(255**2 / error) > 27  # decibels

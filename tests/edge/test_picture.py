"""The engine sees the pixels that the model was trained on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ExifTags, Image

from configs.vision_language import Square
from flows.commands.see import read_image
from storage.image_decoding import decode_square
from tasks.edge.picture import read_picture


def photograph(width: int, height: int) -> np.ndarray:
    """Something with edges and gradients."""
    rows, columns = np.mgrid[:height, :width]
    waves = np.sin(columns / 9) + np.sin(rows / 13) + (columns > width / 3) - (rows > height / 2)
    return np.stack([127 + 40 * np.roll(waves, shift, 1) for shift in (0, 20, 50)], -1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [(96, 96), (640, 480), (300, 500), (110, 130), (64, 50), (1111, 777)])
def test_pixels_of_a_jpeg_are_those_of_the_loader(tmp_path, size, fit):
    path = tmp_path / "image.jpg"
    Image.fromarray(photograph(*size)).save(path, quality=95)
    found = read_picture(path, 96, fit).transpose(1, 2, 0)
    expected = decode_square(path.read_bytes(), 96, fit)
    assert found.shape == (96, 96, 3)
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1, "but for rounding"


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_lies_is_turned_upright(tmp_path, orientation, fit):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for name, quality in (("image.jpg", {"quality": 95}), ("image.png", {})):
        Image.fromarray(photograph(300, 500)).save(tmp_path / name, exif=exif, **quality)
        found = read_picture(tmp_path / name, 96, fit).astype(int)
        expected = read_image(tmp_path / name, Square(96, fit)).numpy()
        assert np.abs(found - expected).mean() < 8, "but for how it is scaled on the way"


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "I;16"])
def test_other_modes_become_rgb_as_in_training(tmp_path, mode):
    path = tmp_path / "image.png"
    pixels = photograph(300, 200)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 256)
    else:
        image = Image.fromarray(pixels).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(pixels[..., 1]))
    image.save(path)
    found = read_picture(path, 96, "pad").astype(int)
    expected = read_image(path, Square(96, "pad")).numpy()
    assert np.abs(found - expected).mean() < 4, "but for how it is scaled on the way"


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    Image.fromarray(photograph(300, 300)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    Image.fromarray(photograph(300, 300)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    for name in ("text.jpg", "cut.jpg", "absent.jpg", "cut.png"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image"):
            read_picture(tmp_path / name, 32, "pad")

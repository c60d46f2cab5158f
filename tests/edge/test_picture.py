"""The engine sees the pixels that the model was trained on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

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


def test_other_modes_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P"):
        path = tmp_path / f"{mode}.png"
        Image.fromarray(photograph(50, 40)).convert(mode).save(path)
        assert read_picture(path, 32, "pad").shape == (3, 32, 32)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    Image.fromarray(photograph(300, 300)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    Image.fromarray(photograph(300, 300)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    for name in ("text.jpg", "cut.jpg", "absent.jpg", "cut.png"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image"):
            read_picture(tmp_path / name, 32, "pad")

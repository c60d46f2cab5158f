"""From bytes to the stored JPEG: nothing damaged passes, nothing good is lost, everything comes out upright and RGB."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from configs.image_text import ImageFormat
from tasks.image_text.picture import UnusableError, make_picture, perceptual_hash
from tests.conftest import shared_data
from tests.image_text.pictures import encoded, scenery, with_orientation

RULES = ImageFormat(side=64, min_side=16)
WHOLE = ImageFormat(side=4096, min_side=1, max_aspect=50)


def stored(data: bytes, rules: ImageFormat = RULES) -> np.ndarray:
    """Return the pixels that are stored of a file."""
    picture = make_picture(data, rules)
    image = Image.open(io.BytesIO(picture.jpeg))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (picture.width, picture.height))
    return np.asarray(image).astype(int)


def refusal(data: bytes, rules: ImageFormat = RULES) -> str:
    """Return the status with which a file is refused."""
    with pytest.raises(UnusableError) as refused:
        make_picture(data, rules)
    return refused.value.status


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation):
    data = with_orientation(scenery(), orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    pixels = stored(data, WHOLE)
    assert pixels.shape == np.asarray(upright).shape
    assert np.abs(pixels - np.asarray(upright)).mean() < 3
    picture = make_picture(data, RULES)
    assert (picture.original_width, picture.original_height) == upright.size


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {}), ("BMP", {}), ("AVIF", {})],
)
def test_no_file_that_is_cut_off_passes(kind, options, cut):
    data = encoded(scenery(200, 160), kind, **options)
    make_picture(data, RULES)
    assert refusal(data[: int(len(data) * cut)]) in ("truncated", "decode_error", "not_image")


def test_a_jpeg_without_its_end_marker_is_truncated():
    assert refusal(encoded(scenery())[:-2]) == "truncated"


def test_real_images_pass_and_no_cut_one_does():
    files = sorted((shared_data("image_text") / "images").glob("*.jpg"))[:20]
    for path in files:
        data = path.read_bytes()
        picture = make_picture(data, ImageFormat())
        assert (picture.original_width, picture.original_height) == Image.open(path).size
        assert min(picture.width, picture.height) == 256
        assert refusal(data[: len(data) * 3 // 5], ImageFormat()) == "truncated"


def test_scaling_moves_and_recolours_nothing():
    path = min((shared_data("image_text") / "images").glob("*.jpg"))
    picture = make_picture(path.read_bytes(), ImageFormat(side=200))
    small = (picture.width // 4, picture.height // 4)
    with Image.open(path) as image:
        reference = np.asarray(image.convert("RGB").resize(small, Image.Resampling.BOX)).astype(int)
    pixels = Image.open(io.BytesIO(picture.jpeg)).resize(small, Image.Resampling.BOX)
    assert np.abs(np.asarray(pixels) - reference).mean() < 3


@pytest.mark.parametrize(
    "data",
    [b"", b"<html><body>no image</body></html>", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"BMW",
     b"RIFFxxxxWAVE", encoded(scenery(), "TIFF"), encoded(scenery(), "EPS"), encoded(scenery(), "PPM")],
    ids=["empty", "html", "pdf", "svg", "text", "wave", "tiff", "eps", "ppm"],
)  # fmt: skip
def test_other_files_are_no_images(data):
    assert refusal(data) in ("not_image", "decode_error")


def png_header(width: int, height: int) -> bytes:
    """Return a tiny PNG that claims a size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_bombs_are_refused_by_their_header():
    assert refusal(png_header(40_000, 40_000)) == "too_many_pixels"
    jpeg = bytearray(encoded(scenery(64, 64)))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", 60_000, 60_000)
    assert refusal(bytes(jpeg)) == "too_many_pixels"


def test_sizes_are_checked_upright_and_scaled():
    assert refusal(encoded(scenery(200, 15))) == "too_small"
    assert refusal(encoded(scenery(400, 40)), ImageFormat(max_aspect=5)) == "aspect"
    assert stored(encoded(scenery(300, 200))).shape == (64, 96, 3)
    assert stored(encoded(scenery(40, 30))).shape == (30, 40, 3), "nothing is enlarged"
    assert stored(encoded(scenery(300, 200)), ImageFormat(side=64, crop="center")).shape == (64, 64, 3)


def test_transparency_lies_on_white_whatever_its_kind():
    rgba = scenery(40, 40).convert("RGBA")
    rgba.putalpha(Image.new("L", (40, 40), 0))
    palette = Image.new("P", (40, 40), 3)
    for data in [encoded(rgba, "PNG"), encoded(rgba, "WEBP", lossless=True), encoded(palette, "GIF", transparency=3)]:
        assert stored(data, WHOLE).min() >= 250


def test_grey_cmyk_palette_and_deep_images_become_rgb():
    image = scenery(64, 64)
    grey = np.asarray(image.convert("L")).astype(int)
    for data in [encoded(image.convert("L")), encoded(image.convert("L"), "PNG")]:
        assert np.abs(stored(data, WHOLE) - grey[..., None]).mean() < 3
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    assert np.abs(stored(encoded(deep, "PNG"), WHOLE) - grey[..., None]).mean() < 3, "16 bits are scaled, not clipped"
    for data in [encoded(image.convert("CMYK")), encoded(image.convert("P"), "PNG")]:
        assert np.abs(stored(data, WHOLE) - np.asarray(image)).mean() < 12


def test_the_first_frame_of_an_animation_counts():
    first, second = scenery(50, 50, 1), scenery(50, 50, 2)
    data = encoded(first.convert("P"), "GIF", save_all=True, append_images=[second.convert("P")])
    assert np.abs(stored(data, WHOLE) - np.asarray(first)).mean() < 12


def test_metadata_and_trailing_bytes_do_not_get_into_shards():
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    data = encoded(scenery(), exif=exif) + b"<script>alert(1)</script>"
    try:
        picture = make_picture(data, WHOLE)
    except UnusableError:
        return
    assert b"secret" not in picture.jpeg
    assert b"script" not in picture.jpeg


def test_perceptual_hashes_survive_recoding_and_tell_pictures_apart():
    def bits(a: int, b: int) -> int:
        return (a ^ b).bit_count()

    one, two = (make_picture(encoded(scenery(200, 160, s), quality=95), RULES).phash for s in (1, 2))
    again = make_picture(encoded(scenery(200, 160, 1).resize((150, 120)), quality=40), RULES).phash
    assert bits(one, again) <= 6
    assert bits(one, two) > 12
    assert perceptual_hash(np.full((64, 64, 3), 200, np.uint8)) == 0, "a flat image has no hash"

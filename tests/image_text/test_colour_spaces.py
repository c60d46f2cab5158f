"""Colours that files describe without a profile: in sRGB as plain numpy has them, or told to be not converted."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tasks.image_text.picture import make_picture
from tests.image_text.pictures import encoded, scenery
from tests.image_text.profiles import ADOBE, P3, rgb_profile, srgb_curve, to_srgb
from tests.image_text.test_picture import RULES, WHOLE, stored

READ = "read"
ADOBE_POINTS = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
SRGB_POINTS = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
REC_2020 = np.array([[0.6735, 0.1657, 0.1251], [0.2790, 0.6753, 0.0456], [-0.0019, 0.0300, 0.7970]])
"""From linear BT.2020 to XYZ under D50, as published."""


def shape(text: str, kind: str = "image") -> pytest.MarkDecorator:
    return pytest.mark.input_shape(format=kind, shape=text, outcome=READ)


def with_chunks(png: bytes, **chunks: bytes) -> bytes:
    """Return a PNG with further chunks after its header."""
    added = b""
    for name, content in chunks.items():
        kind = name.encode() + content
        added += struct.pack(">I", len(content)) + kind + struct.pack(">I", zlib.crc32(kind))
    return png[:33] + added + png[33:]


def gama(gamma: float) -> bytes:
    return struct.pack(">I", round(gamma * 100_000))


def chrm(points: tuple[float, ...]) -> bytes:
    return struct.pack(">8I", *(round(point * 100_000) for point in points))


def srgb_light(values: np.ndarray) -> np.ndarray:
    values = values / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def in_srgb(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return what values of these primaries with the curve of sRGB are in sRGB."""
    srgb = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
    return srgb_curve((srgb_light(values) @ matrix.T @ np.linalg.inv(srgb).T).clip(0, 1))


@pytest.mark.parametrize(
    ("gamma", "mode"),
    [
        pytest.param(1.0, "RGB", marks=shape("PNG of linear light, by gAMA")),
        pytest.param(1 / 1.8, "RGB", marks=shape("PNG with the gAMA of old Macintoshes")),
        pytest.param(1.0, "L", marks=shape("grey PNG with a gAMA")),
        (1.0, "P"),
    ],
)
def test_the_gamma_of_a_png_counts(gamma, mode):
    image = scenery(96, 64).quantize(256, dither=Image.Dither.NONE) if mode == "P" else scenery(96, 64).convert(mode)
    values = np.asarray(image.convert("RGB"))
    wanted = srgb_curve((values / 255.0) ** (1 / gamma))
    assert np.abs(wanted - values).mean() > 10, "the gamma matters"
    got = stored(with_chunks(encoded(image, "PNG"), gAMA=gama(gamma)), WHOLE)
    assert np.abs(got - wanted).mean() < 4


@shape("PNG with other primaries, by cHRM")
def test_the_primaries_of_a_png_count():
    image = scenery(96, 64)
    values = np.asarray(image)
    chunks = {"gAMA": gama(1 / 2.2), "cHRM": chrm(ADOBE_POINTS)}
    got = stored(with_chunks(encoded(image, "PNG"), **chunks), WHOLE)
    assert np.abs(to_srgb(values, ADOBE, 2.2) - values).mean() > 4
    assert np.abs(got - to_srgb(values, ADOBE, 2.2)).mean() < 2.5
    alone = stored(with_chunks(encoded(image, "PNG"), cHRM=chrm(ADOBE_POINTS)), WHOLE)
    assert np.abs(alone - in_srgb(values, ADOBE)).mean() < 2.5


@pytest.mark.parametrize(
    "chunks",
    [
        {"gAMA": struct.pack(">I", 45455)},
        {"gAMA": struct.pack(">I", 45455), "cHRM": chrm(SRGB_POINTS)},
        {"gAMA": gama(1.0), "sRGB": b"\0"},
        {"gAMA": gama(1.0), "cICP": bytes([1, 13, 0, 1])},
    ],
)
def test_a_png_that_says_srgb_stays_as_it_is(chunks):
    plain = encoded(scenery(), "PNG")
    assert make_picture(with_chunks(plain, **chunks), RULES) == make_picture(plain, RULES)


def test_transparency_keeps_what_a_gamma_makes_of_colours():
    rgba = scenery(48, 32).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize((48, 32)))
    alpha = np.asarray(rgba)[..., 3:] / 255.0
    wanted = srgb_curve(np.asarray(rgba)[..., :3] / 255.0) * alpha + 255 * (1 - alpha)
    got = stored(with_chunks(encoded(rgba, "PNG"), gAMA=gama(1.0)), WHOLE)
    assert np.abs(got - wanted).mean() < 3


def with_nclx(avif: bytes, primaries: int, curve: int) -> bytes:
    place = avif.index(b"colrnclx") + 8
    return avif[:place] + struct.pack(">HH", primaries, curve) + avif[place + 4 :]


@pytest.mark.parametrize(
    ("primaries", "curve", "matrix"),
    [
        pytest.param(12, 13, P3, marks=shape("AVIF in Display P3, by nclx")),
        pytest.param(9, 1, REC_2020, marks=shape("AVIF in BT.2020, by nclx")),
    ],
)
def test_the_primaries_of_an_avif_count(primaries, curve, matrix):
    plain = encoded(scenery(96, 64), "AVIF", quality=100)
    values = stored(plain, WHOLE)
    got = stored(with_nclx(plain, primaries, curve), WHOLE)
    assert np.abs(in_srgb(values, matrix) - values).mean() > 3
    assert np.abs(got - in_srgb(values, matrix)).mean() < 2.5
    png = with_chunks(encoded(scenery(96, 64), "PNG"), cICP=bytes([primaries, curve, 0, 1]))
    assert np.abs(stored(png, WHOLE) - in_srgb(np.asarray(scenery(96, 64)), matrix)).mean() < 2.5


@pytest.mark.parametrize(("primaries", "curve"), [(1, 13), (2, 2), (1, 1)])
def test_an_avif_in_srgb_stays_as_it_is(primaries, curve):
    plain = encoded(scenery(), "AVIF")
    assert make_picture(with_nclx(plain, primaries, curve), RULES) == make_picture(plain, RULES)


def camera_exif(space: int, index: str = "") -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769)[0xA001] = space
    if index:
        exif.get_ifd(0x8769)[0xA005] = {1: index}
    return exif


@pytest.mark.parametrize(
    ("space", "index"),
    [
        pytest.param(2, "", marks=shape("Adobe RGB by EXIF ColorSpace 2")),
        pytest.param(65535, "R03", marks=shape("Adobe RGB by the index R03 of cameras")),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_adobe_rgb_by_exif_is_converted(space, index, kind):
    settings = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    image, options = scenery(96, 64), settings.get(kind, {})
    values = stored(encoded(image, kind, **options), WHOLE)
    wanted = to_srgb(values, ADOBE, 2.19921875)
    got = stored(encoded(image, kind, exif=camera_exif(space, index), **options), WHOLE)
    assert np.abs(wanted - values).mean() > 4
    assert np.abs(got - wanted).mean() < 2.5


@pytest.mark.parametrize(("space", "index"), [(1, "R98"), (1, "R03"), (65535, ""), (65535, "R98"), (7, "")])
def test_other_exif_changes_no_colour(space, index):
    plain = encoded(scenery())
    assert make_picture(encoded(scenery(), exif=camera_exif(space, index)), RULES) == make_picture(plain, RULES)


def with_bmp_profile(profile: bytes, kind: bytes = b"DEBM") -> bytes:
    """Return a BMP with a header of version 5 and a profile behind its pixels."""
    plain = encoded(scenery(96, 64), "BMP")
    pixels = plain[54:]
    header = struct.pack("<I", 124) + plain[18:54] + bytes(16) + kind + bytes(48) + struct.pack("<I", 4)
    header += struct.pack("<II", 124 + len(pixels), len(profile)) + bytes(4)
    assert len(header) == 124
    whole = header + pixels + profile
    return b"BM" + struct.pack("<IHHI", 14 + len(whole), 0, 0, 14 + 124) + whole


@shape("BMP with a profile inside")
def test_the_profile_of_a_bmp_counts():
    values = np.asarray(scenery(96, 64))
    got = stored(with_bmp_profile(rgb_profile(ADOBE, 2.19921875)), WHOLE)
    assert np.abs(got - to_srgb(values, ADOBE, 2.19921875)).mean() < 2.5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(with_nclx(encoded(scenery(), "AVIF"), 9, 16), "its values follow the curve PQ",
                     marks=shape("AVIF of high dynamic range")),
        pytest.param(with_nclx(encoded(scenery(), "AVIF"), 77, 13), "its primaries have the number 77", id="primaries"),
        pytest.param(with_chunks(encoded(scenery(), "PNG"), gAMA=bytes(4)), "its gamma is 0",
                     marks=shape("PNG with a gAMA of 0")),
        pytest.param(with_chunks(encoded(scenery(), "PNG"), cHRM=bytes(32)), "its primaries are no colours",
                     marks=shape("PNG with a cHRM of zeros")),
        pytest.param(with_chunks(encoded(scenery(), "PNG"), iCCP=b"name\0\0none"), "it is damaged",
                     marks=shape("PNG with an iCCP that cannot be inflated")),
        pytest.param(with_bmp_profile(b"", b"KNIL"), "it lies in another file", id="linked"),
    ],
)  # fmt: skip
def test_what_no_profile_can_say_is_told(data, reason):
    picture = make_picture(data, RULES)
    assert picture.profile == reason

"""Image files as people have them: colour profiles, orientations in odd places, files that end too early or never."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from configs.image_text import Fetching, ImageFormat
from storage.image_files import jpeg_segments
from tasks.image_text import in_time
from tasks.image_text.colours import LARGEST_PROFILE
from tasks.image_text.packing import Fate
from tasks.image_text.picture import UnusableError, make_picture
from tasks.image_text.shard import judge
from tests.conftest import shared_data
from tests.image_text.pictures import encoded, scenery, with_orientation
from tests.image_text.profiles import ADOBE, P3, cmyk_profile, grey_profile, rgb_profile, srgb_curve, to_srgb
from tests.image_text.test_picture import RULES, WHOLE, refusal, stored

READ, REFUSED = "read", "refused"


def shape(text: str, outcome: str, kind: str = "image") -> pytest.MarkDecorator:
    return pytest.mark.input_shape(format=kind, shape=text, outcome=outcome)


# --- colours


@pytest.mark.parametrize(
    ("matrix", "gamma"),
    [
        pytest.param(P3, 2.2, marks=shape("Display P3 profile", READ), id="p3"),
        pytest.param(ADOBE, 2.19921875, marks=shape("Adobe RGB profile", READ), id="adobe"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_rgb_profiles_are_converted_to_srgb(matrix, gamma, kind):
    image = scenery(96, 64)
    lossless = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    data = encoded(image, kind, icc_profile=rgb_profile(matrix, gamma), **lossless.get(kind, {}))
    wanted = to_srgb(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), matrix, gamma)
    assert np.abs(wanted - np.asarray(image)).mean() > 4, "the profile matters"
    assert np.abs(stored(data, WHOLE) - wanted).mean() < 2.5


@shape("greyscale profile of another gamma", READ)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_profiles_are_converted(kind):
    image = scenery(96, 64).convert("L")
    wanted = srgb_curve((np.asarray(image) / 255.0) ** 1.0)
    data = encoded(image, kind, icc_profile=grey_profile(1.0))
    assert np.abs(wanted - np.asarray(image)).mean() > 20
    assert np.abs(stored(data, WHOLE) - wanted[..., None]).mean() < 3


@shape("CMYK with a profile", READ)
def test_cmyk_profiles_are_converted():
    image, profile = scenery(96, 64).convert("CMYK"), cmyk_profile()
    data = encoded(image, quality=100, subsampling=0, icc_profile=profile)
    decoded = Image.open(io.BytesIO(data))
    theirs = ImageCms.profileToProfile(decoded, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.abs(np.asarray(theirs).astype(int) - np.asarray(decoded.convert("RGB"))).mean() > 20
    assert np.abs(stored(data, WHOLE) - np.asarray(theirs)).mean() < 3


def test_transparency_and_deep_grey_keep_their_profile():
    rgba = scenery(48, 32).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize((48, 32)))
    data = encoded(rgba, "PNG", icc_profile=rgb_profile(ADOBE, 2.19921875))
    alpha = np.asarray(rgba)[..., 3:] / 255.0
    wanted = to_srgb(np.asarray(rgba)[..., :3], ADOBE, 2.19921875) * alpha + 255 * (1 - alpha)
    assert np.abs(stored(data, WHOLE) - wanted).mean() < 3


def test_srgb_profiles_change_no_byte():
    image = scenery()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG"):
        assert make_picture(encoded(image, kind, icc_profile=srgb), RULES) == make_picture(encoded(image, kind), RULES)


def test_real_photographs_in_srgb_stay_and_those_in_adobe_rgb_are_converted():
    described = {}
    for path in sorted((shared_data("image_text") / "images").glob("*.jpg")):
        with Image.open(path) as image:
            if profile := image.info.get("icc_profile"):
                name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip()
                described.setdefault(name, path)
    rules = ImageFormat(side=4096, max_aspect=50)
    assert {"Adobe RGB (1998)", "sRGB IEC61966-2.1"} <= described.keys()
    for name, path in described.items():
        with Image.open(path) as image:
            plain = np.asarray(image.convert("RGB")).astype(int)
            source = io.BytesIO(image.info["icc_profile"])
            theirs = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        pixels = stored(path.read_bytes(), rules)
        wanted = plain if "sRGB" in name else np.asarray(theirs).astype(int)
        assert np.abs(pixels - wanted).mean() < 4, name


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        pytest.param(b"no profile", "it is damaged", marks=shape("damaged colour profile", "read")),
        pytest.param(grey_profile(1.0), "it is one of GRAY for pixels of RGB", id="grey for colour"),
        pytest.param(
            rgb_profile(P3, 2.2) + bytes(LARGEST_PROFILE), "it has 4194", id="huge",
            marks=shape("colour profile of more than 4 MB", "read"),
        ),
    ],
)  # fmt: skip
def test_profiles_that_cannot_be_applied_are_counted(profile, reason):
    task = in_task()
    fate, bad = Fate(0, ""), Fate(0, "")
    picture = judge(bad, encoded(scenery(), icc_profile=profile), "", task)
    plain = judge(fate, encoded(scenery()), "", task)
    assert picture is not None
    assert plain is not None
    assert (bad.status, fate.status, fate.detail) == ("ok", "ok", "")
    assert bad.detail.startswith(f"its colour profile was not applied: {reason}")
    assert picture.jpeg == plain.jpeg


def in_task(**fetching):
    class Task:
        image = RULES

    Task.fetching = Fetching(**fetching)
    return Task


# --- orientation


def xmp(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Des'
        b'cription xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
        % orientation
    )


@shape("EXIF orientation after fill bytes", READ)
def test_fill_bytes_before_a_segment_hide_no_orientation():
    data = with_orientation(scenery(), 6)
    place = data.index(b"\xff\xe1")
    filled = data[:place] + b"\xff" * 3 + data[place:]
    assert (stored(filled, WHOLE) == stored(data, WHOLE)).all()
    assert stored(filled, WHOLE).shape == (120, 90, 3)


@shape("orientation in XMP alone", READ)
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_an_orientation_in_xmp_counts_where_exif_has_none(orientation):
    told = encoded(scenery(), quality=95, xmp=xmp(orientation))
    assert (stored(told, WHOLE) == stored(with_orientation(scenery(), orientation), WHOLE)).all()


@pytest.mark.parametrize(
    ("written", "orientation"),
    [
        (b"<x tiff:Orientation = '6'/>", 6),
        (b"<tiff:Orientation>\n 6\n</tiff:Orientation>", 6),
        (b"<x tiff:Orientation='61'/>", 1),
        (b"<x tiff:Orientation='0'/>", 1),
    ],
)
def test_an_orientation_in_xmp_however_it_is_written(written, orientation):
    told = encoded(scenery(), quality=95, xmp=written)
    assert (stored(told, WHOLE) == stored(with_orientation(scenery(), orientation), WHOLE)).all()


@shape("AVIF with something behind its end", READ)
def test_what_follows_an_avif_does_not_make_it_cut():
    whole = encoded(scenery(), "AVIF")
    assert make_picture(whole + b"something else", RULES) == make_picture(whole, RULES)
    assert refusal(whole[:-20]) == "truncated"


def test_exif_decides_before_xmp():
    exif = Image.Exif()
    exif[0x0112] = 1
    assert stored(encoded(scenery(), exif=exif, xmp=xmp(6)), WHOLE).shape == (90, 120, 3)


# --- files that end too early, or never


def half_png(rows: int, *, interlaced: bool = False, colour: int = 2) -> bytes:
    """Return a PNG of 40 x 32 pixels whose compressed stream ends properly after some rows; all checksums hold."""
    random = np.random.default_rng(0)
    row = b"\0" + random.integers(0, 256, 40 * {0: 1, 2: 3}[colour], np.uint8).tobytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", 40, 32, 8, colour, 0, 0, int(interlaced))
    chunks = [header, b"IDAT" + zlib.compress(row * rows), b"IEND"]
    packed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@shape("PNG whose stream ends properly after half of its rows", REFUSED)
@pytest.mark.parametrize("colour", [0, 2])
def test_a_png_without_all_its_rows_is_truncated(colour):
    assert refusal(half_png(16, colour=colour)) == "truncated"
    assert refusal(half_png(31, colour=colour)) == "truncated"
    make_picture(half_png(32, colour=colour), RULES)
    make_picture(half_png(33, colour=colour), RULES)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(40, 33), (17, 16), (129, 65)])
def test_whole_pngs_of_every_kind_pass(mode, size):
    grey = scenery(*size).convert("L")
    image = (
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else scenery(*size).convert(mode)
    )
    assert make_picture(encoded(image, "PNG"), WHOLE).original_width == size[0]


def test_interlaced_pngs_are_counted_pass_by_pass():
    import cv2  # Pillow writes none

    pixels = np.ascontiguousarray(np.asarray(scenery(37, 29)))
    data = interlaced(pixels)
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] == pixels).all()
    assert np.abs(stored(data, WHOLE) - pixels).mean() < 4
    assert refusal(interlaced(pixels, missing=1), WHOLE) == "truncated"


def interlaced(pixels: np.ndarray, missing: int = 0) -> bytes:
    """Return pixels as an interlaced PNG, without the last so many bytes of its rows."""
    raw = b""
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    for top, left, down, across in starts:
        for row in pixels[top::down, left::across]:
            raw += b"\0" + row.tobytes() if len(row) else b""
    header = b"IHDR" + struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = [header, b"IDAT" + zlib.compress(raw[: len(raw) - missing]), b"IEND"]
    packed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("cut", [0.05, 0.2, 0.5, 0.9, 0.99, -1])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(kind, options, marks=shape(f"cut {kind}", REFUSED))
        for kind, options in [
            ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("WEBP", {}), ("BMP", {}),
            ("AVIF", {}),
        ]
    ],
)  # fmt: skip
def test_every_cut_file_is_called_truncated(kind, options, cut):
    data = encoded(scenery(200, 160), kind, **options)
    make_picture(data, RULES)
    assert refusal(data[: int(len(data) * cut)] if cut > 0 else data[:cut]) == "truncated"


def test_an_animation_that_is_cut_after_its_first_frame_is_truncated():
    frames = [scenery(50, 50, n).convert("P") for n in (1, 2)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    make_picture(data, RULES)
    assert refusal(data[:-40]) == "truncated"


def test_damage_is_not_called_a_cut():
    assert refusal(b"\xff\xd8\xff\xe0\0\x04ab" + b"something else entirely") == "decode_error"
    assert refusal(b"BMW is a maker of cars and has nothing to do with pictures") != "truncated"


@shape("JPEG of 2000 scans", REFUSED)
def test_a_jpeg_of_very_many_scans_is_refused_at_once():
    data = encoded(scenery(200, 160), progressive=True)
    scan = [s for s in jpeg_segments(data) if s.marker == 0xDA][-1]
    many = data[:-2] + data[scan.start - 4 : -2] * 2000 + b"\xff\xd9"
    begin = time.perf_counter()
    with pytest.raises(UnusableError, match="more than 100 scans") as refused:
        make_picture(many, RULES)
    assert refused.value.status == "decode_error"
    assert time.perf_counter() - begin < 1


def test_slow_images_are_decoded_in_a_process_that_the_deadline_ends(monkeypatch):
    data = encoded(scenery(300, 200), "PNG", icc_profile=b"damaged")
    monkeypatch.setattr(in_time, "QUICK", 0)
    assert in_time.picture_in_time(data, RULES, 60) == make_picture(data, RULES)
    monkeypatch.setattr(in_time, "STARTING", 0)
    with pytest.raises(UnusableError) as late:
        in_time.picture_in_time(data, RULES, 0.02)
    assert late.value.args == ("decode_error", "not decoded within 0.02 s")
    assert in_time.effort(data) == (300 * 200, 10)
    assert in_time.effort(encoded(scenery(300, 200))) == (300 * 200, 1)
    assert in_time.effort(encoded(scenery(300, 200), progressive=True))[1] > 5
    assert in_time.effort(b"no image")[0] == 0


def test_no_detail_holds_an_address_in_memory():
    """Two readings of the same broken bytes leave the same words."""
    for kind in ("PNG", "GIF", "WEBP", "BMP", "AVIF", "JPEG"):
        data = bytearray(encoded(scenery(64, 64), kind))
        for place in range(4, len(data), max(1, len(data) // 60)):
            broken = bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
            assert outcome(broken) == outcome(broken)
            assert " at 0x" not in outcome(broken)[1]


def outcome(data: bytes) -> tuple[str, str]:
    try:
        make_picture(data, RULES)
    except UnusableError as error:
        return error.args
    return ("ok", "")

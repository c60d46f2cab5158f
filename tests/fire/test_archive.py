"""Raw archives: the layout in all its forms, and every kind of broken fire."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.fire_data import BandRecipe, Decoding
from storage.assets import AssetStore, verify
from storage.token_cache import TokenCache
from tasks.fire.archive import archive_files
from tests.conftest import REPOSITORY
from tests.fire.archives import (
    BURNT,
    Fire,
    burn,
    cache_of,
    landscape,
    records_of,
    write_archive,
    write_image,
    write_weather,
)


def opened(store, root, **options) -> TokenCache:
    return TokenCache.open(cache_of(store, root, **options).folder)


def same_content(first: TokenCache, second: TokenCache) -> bool:
    names = [p.parent.relative_to(first.folder).as_posix() for p in first.folder.rglob("zarr.json")]
    return all(
        np.array_equal(first.array(n), second.array(n))
        for n in names
        if n not in (".", "seq/digits")
        and not (first.folder / n / "zarr.json").read_text().count('"node_type": "group"')
    )


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_colours_decide_whatever_the_png_mode(store, tmp_path, mode):
    write_archive(tmp_path / "a")
    write_archive(tmp_path / "b", mode=mode)
    assert same_content(opened(store, tmp_path / "a"), opened(store, tmp_path / "b"))


def test_masks_are_what_the_images_show(store, tmp_path):
    raw = write_archive(tmp_path / "a")
    cache = opened(store, tmp_path / "a")
    for i, fire in enumerate(raw.fires):
        np.testing.assert_array_equal(cache.frames(i), raw.frames[fire.number])
        y0, y1, x0, x1 = fire.box
        np.testing.assert_array_equal(cache.domain(i), raw.valid["fuels"][y0:y1, x0:x1])
        np.testing.assert_array_equal(cache.target(i, 1), raw.frames[fire.number][1])


def test_four_digits_other_prefixes_integers_nan_and_bands_in_another_order_are_the_same(store, tmp_path):
    bands = {name: np.round(band * 10) for name, band in landscape().items()}
    bands["fuels"] = landscape()["fuels"]
    plain = write_archive(tmp_path / "plain", bands=bands)
    expected = opened(store, tmp_path / "plain")
    write_archive(tmp_path / "digits", bands=bands, digits=4, prefix="D:\\x\\Weathers\\")
    write_archive(tmp_path / "int", bands=bands, dtype="int16")
    write_archive(tmp_path / "nan", bands=bands, nodata=None)
    for other in ("digits", "int", "nan"):
        assert same_content(expected, opened(store, tmp_path / other)), other
    assert opened(store, tmp_path / "digits").names[0] == "sequence_0001"
    turned = {name: bands[name] for name in ("elevation", "fuels", "cbd")}
    write_archive(tmp_path / "turned", fires=plain.fires, bands=turned)
    cache = opened(store, tmp_path / "turned")
    by_name = dict(zip(cache.continuous, cache.array("landscape/values"), strict=True))
    for name, values in zip(expected.continuous, expected.array("landscape/values"), strict=True):
        np.testing.assert_array_equal(by_name[name], values)


def test_undeclared_nodata_of_the_format_is_recognised(store, tmp_path):
    write_archive(tmp_path / "a")
    write_archive(tmp_path / "b", nodata=None, under_nodata=-9999.0)
    assert same_content(opened(store, tmp_path / "a"), opened(store, tmp_path / "b"))


def test_weather_rows_may_number_t_or_t_minus_one_and_drive_the_step_after_them(store, tmp_path):
    raw = write_archive(tmp_path / "a")
    write_archive(tmp_path / "b", extra_row=True)
    short, long = opened(store, tmp_path / "a"), opened(store, tmp_path / "b")
    for i, fire in enumerate(raw.fires):
        rows = np.array(raw.winds[fire.number])
        wind, valid = short.wind(i)
        assert valid.tolist() == [True] * (fire.steps - 1) + [False]
        angle = np.deg2rad(rows[:, 1])
        np.testing.assert_allclose(wind[:-1], np.stack([rows[:, 0], np.sin(angle), np.cos(angle)], 1), atol=1e-6)
        np.testing.assert_array_equal(long.wind(i)[0][:-1], wind[:-1])
        assert long.wind(i)[1].all()


def test_north_is_one_vector_however_it_is_written(store, tmp_path):
    fires = [Fire(1, (10, 50, 10, 50), (30, 30), 3, [(5, 0), (5, 360)]), Fire(2, (10, 50, 60, 99), (30, 80), 3)]
    write_archive(tmp_path / "a", fires)
    wind, _ = opened(store, tmp_path / "a").wind(0)
    np.testing.assert_allclose(wind[0], wind[1], atol=1e-6)


def replace_pixel(path: Path, colour: tuple[int, ...], place=(0, 0)) -> None:
    image = Image.open(path).copy()
    image.putpixel(place, colour)
    image.save(path)


def flip_bit(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def shrink(path: Path) -> None:
    image = Image.open(path)
    image.crop((0, 0, image.width - 1, image.height)).save(path)


def entry(raw, number, box) -> None:
    path = raw.root / "landscape/indices.json"
    boxes = json.loads(path.read_text())
    boxes[str(number)] = box
    if box is None:
        del boxes[str(number)]
    path.write_text(json.dumps(boxes))


def burn_outside(raw) -> None:
    """Let fire 4, whose crop reaches into a hole of the fuel band, burn there in its last frame."""
    fire = raw.fires[3]
    hole = fire.box[0], fire.box[2]
    bands = {name: band.copy() for name, band in raw.bands.items()}
    bands["fuels"][hole] = np.nan
    from tests.fire.archives import write_landscape

    write_landscape(raw.root, bands, -9999.0, None, "float32")
    for kind in ("fire_frames", "isochrones"):
        replace_pixel(raw.image(4, fire.steps - 1, kind), BURNT)


def unburn(raw) -> None:
    mask = raw.frames[4][1].copy()
    mask[17, 14] = False
    write_image(raw.image(4, 1, "fire_frames"), mask)


def uncover(raw) -> None:
    write_image(raw.image(4, 2), raw.frames[4][0] & False)


def fade(raw) -> None:
    for kind in ("fire_frames", "isochrones"):
        for step in range(raw.fires[3].steps):
            write_image(raw.image(4, step, kind), raw.frames[4][0] & False)


def history_line(raw, text: str) -> None:
    path = raw.root / "landscape/WeatherHistory.csv"
    lines = path.read_text().splitlines()
    lines[3] = text
    path.write_text("\n".join(lines))


DEFECTS = {
    "missing frame": (lambda raw: raw.image(4, 2, "fire_frames").unlink(), "lacks image 2 in fire_frames"),
    "missing target": (lambda raw: raw.image(4, 4).unlink(), "has 5 frames but 4 isochrones"),
    "size": (lambda raw: shrink(raw.image(4, 1)), "iso_001.png has 36 x 34 pixels, but the box .* 36 x 35"),
    "box outside": (lambda raw: entry(raw, 4, [80, 116, 80, 115]), "not inside the landscape of 96 x 160"),
    "box upside down": (lambda raw: entry(raw, 4, [50, 40, 80, 115]), "not inside the landscape"),
    "no box": (lambda raw: entry(raw, 4, None), "has no entry in landscape/indices.json"),
    "outside the domain": (burn_outside, "burns on 1 pixels where the fuel band has no value"),
    "un-burning": (unburn, "fire_001.png shows 1 pixels unburnt that burn one frame earlier"),
    "target without the frame": (uncover, "iso_002.png does not cover"),
    "never burns": (fade, "burns in no frame"),
    "rows": (lambda raw: write_weather(raw.root / "landscape/Weathers/Weather4.csv", [(1, 1)]), "has 1 rows, where 5"),
    "no weather": (
        lambda raw: (raw.root / "landscape/Weathers/Weather4.csv").unlink(),
        "Weather4.csv, which is missing",
    ),
    "no line": (lambda raw: history_line(raw, ""), "has no line 4"),
    "columns": (
        lambda raw: (raw.root / "landscape/Weathers/Weather4.csv").write_text("speed,WD\n1,2\n"),
        "has no column WS, only speed, WD",
    ),
    "broken png": (
        lambda raw: raw.image(4, 1).write_bytes(raw.image(4, 1).read_bytes()[:60]),
        "iso_001.png cannot be decoded as PNG",
    ),
    "png without its end": (
        lambda raw: raw.image(4, 1).write_bytes(raw.image(4, 1).read_bytes()[:-30]),
        "iso_001.png cannot be decoded as PNG",
    ),
    "png with a wrong bit": (lambda raw: flip_bit(raw.image(4, 1), -30), "iso_001.png cannot be decoded as PNG"),
    "16 bits": (
        lambda raw: Image.fromarray(np.zeros((36, 35), np.uint16)).save(raw.image(4, 1)),
        "iso_001.png has uint16 pixels",
    ),
    "jpeg": (
        lambda raw: Image.open(raw.image(4, 1)).convert("RGB").save(raw.image(4, 1), "JPEG"),
        "iso_001.png cannot be decoded as PNG",
    ),
    "third colour": (lambda raw: replace_pixel(raw.image(4, 1), (9, 8, 7, 255)), r"\(9, 8, 7, 255\)"),
    "two burning colours": (lambda raw: replace_pixel(raw.image(4, 1), (9, 231, 7, 255)), r"\(9, 231, 7, 255\)"),
    "grey of colours": (
        lambda raw: Image.open(raw.image(4, 1)).convert("L").save(raw.image(4, 1)),
        r"iso_001.png has the colours \(30,\), \(215,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_broken_fire_is_named_and_left_out_or_stops_the_stage(store, tmp_path, defect):
    damage, words = DEFECTS[defect]
    raw = write_archive(tmp_path / "a")
    damage(raw)
    with pytest.raises(ValueError, match=f"1 of 6 fires cannot be used: sequence_004 .*{words}.*on_broken=skip"):
        records_of(store, tmp_path / "a")
    assert store.assets("fire_records") == []
    records = records_of(store, tmp_path / "a", on_broken="skip")
    assert records.manifest.counts["broken_left_out"] == 1
    assert records.manifest.counts["fires"] == 5
    assert not any("sequence_004" in f.path for f in records.manifest.files)
    assert "sequence_004" in json.loads((records.folder / "fires.json").read_text())["broken"]
    cache = opened(store, tmp_path / "a", on_broken="skip")
    assert cache.names == [f"sequence_{n:03d}" for n in (1, 2, 3, 5, 6)]


def test_all_broken_fires_are_in_one_message(store, tmp_path):
    raw = write_archive(tmp_path / "a")
    raw.image(2, 1).unlink()
    shrink(raw.image(5, 0, "fire_frames"))
    with pytest.raises(ValueError, match=r"2 of 6 fires .*sequence_002 .*sequence_005"):
        records_of(store, tmp_path / "a")


def test_a_folder_that_is_no_archive_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="is no fire archive, it has no landscape"):
        archive_files(str(tmp_path))


def test_bands_of_unknown_kind_are_listed_with_what_to_write(store, tmp_path):
    bands = landscape()
    write_archive(tmp_path / "a", bands=bands | {"moss": bands["cbd"], "site": bands["fuels"]})
    with pytest.raises(ValueError, match=r"moss, site .*decoding.bands=\[\{name: moss, kind: continuous\|categorical"):
        records_of(store, tmp_path / "a")
    decoding = Decoding(bands=(BandRecipe(name="moss", kind="ignore"), BandRecipe(name="site", kind="binary")))
    cache = opened(store, tmp_path / "a", decoding=decoding)
    assert cache.continuous == ("cbd", "elevation", "slope_east", "slope_north")
    assert dict(cache.categorical)["site"] == (0, 1)


def test_fires_that_swap_their_names_are_another_archive(store, tmp_path):
    fires = [Fire(1, (10, 50, 10, 50), (30, 30)), Fire(2, (20, 60, 60, 100), (40, 80), growth=3)]
    raw = write_archive(tmp_path / "a", fires)
    before = opened(store, tmp_path / "a")
    for kind in ("fire_frames", "isochrones"):
        folder = raw.root / kind
        (folder / "sequence_001").rename(folder / "x")
        (folder / "sequence_002").rename(folder / "sequence_001")
        (folder / "x").rename(folder / "sequence_002")
    after = opened(store, tmp_path / "a")
    assert before.folder != after.folder
    assert np.array_equal(before.frames(0), after.frames(1))


def test_an_added_fire_makes_only_its_own_record(store, tmp_path):
    write_archive(
        tmp_path / "a", some := [Fire(n, (10, 50, 12 * n, 12 * n + 40), (30, 12 * n + 20)) for n in (1, 2, 3)]
    )
    first = records_of(store, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    write_archive(tmp_path / "a", [*some, Fire(4, (10, 50, 90, 131), (30, 110))])
    second = records_of(store, tmp_path / "a")

    def inodes(asset) -> dict[str, int]:
        return {p.name: p.stat().st_ino for p in (asset.folder / "fires").iterdir()}

    old, new = inodes(first), inodes(second)
    assert len(new) == 4
    assert {name: new[name] for name in old} == old, "taken over by hard link"


@pytest.mark.long
def test_bytes_do_not_depend_on_workers(tmp_path):
    fires = [Fire(n, (5, 45 + n, 6 * n, 6 * n + 40), (30, 6 * n + 20), 2 + n % 5) for n in range(1, 15)]
    write_archive(tmp_path / "a", fires)
    stores = AssetStore(tmp_path / "one"), AssetStore(tmp_path / "two")
    alone = cache_of(stores[0], tmp_path / "a", workers="inline")
    together = cache_of(stores[1], tmp_path / "a", workers="2")
    assert stores[0].assets("fire_records")[0].fingerprint == stores[1].assets("fire_records")[0].fingerprint
    assert alone.fingerprint == together.fingerprint


def test_killed_records_resume_and_end_byte_identical(tmp_path):
    fires = [Fire(n, (2, 94, 0, 150), (45, 4 * n), 12) for n in range(1, 31)]
    write_archive(tmp_path / "a", fires)
    command = (
        "from tests.fire.archives import *; import sys; records_of(AssetStore(Path(sys.argv[1])), Path(sys.argv[2]))"
    )

    def start(root: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", command, tmp_path / root, tmp_path / "a"], cwd=REPOSITORY)

    def finished() -> int:
        return len(list((tmp_path / "killed").glob("fire_records/*.partial/.units/sequence*.json")))

    process = start("killed")
    deadline = time.monotonic() + 400
    while finished() < 5 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 5 <= finished() < len(fires), "the kill hit the stage while it worked"
    killed = records_of(AssetStore(tmp_path / "killed"), tmp_path / "a")
    assert killed.manifest.reason.startswith("continues")
    calm = records_of(AssetStore(tmp_path / "calm"), tmp_path / "a")
    assert calm.fingerprint == killed.fingerprint
    assert verify(killed, deep=True) == []


def test_burn_helper_is_nested():
    frames = burn(Fire(1, (0, 20, 0, 20), (10, 10)), np.ones((20, 20), bool))
    assert (frames[:-1] <= frames[1:]).all()

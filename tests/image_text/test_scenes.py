"""Generated scenes: pictures, captions and answers agree, and equal seeds give equal bytes."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from configs.image_text import ImageFormat
from configs.image_text_sample import SampleScenes
from storage.assets import Asset, AssetStore
from storage.shard_set import STATUSES
from tasks.progress import Silent
from tasks.samples.scene_drawing import FORMATS, JPEGS, draw_scene, encode, file_format
from tasks.samples.scene_model import COLOURS, Scene, Thing, make_scene
from tasks.samples.scene_questions import questions
from tasks.samples.scene_texts import long_caption, short_caption
from tasks.samples.scenes import COPIES_EVERY, depicted, image_text_sample
from tasks.samples.website import load_site
from tasks.session import Session
from tests.image_text.scene_claims import answer, holds
from tests.image_text.sites import files_of, sha256

SCENES = 400


def sample(root: Path, **options: Any) -> Asset:
    """Generate scenes into a store."""
    with Session(AssetStore(root), Silent()).active():
        return image_text_sample(source=SampleScenes(**{"images": 120} | options))


def truth(asset: Asset) -> list[dict[str, Any]]:
    """Return what every URL shows, with its scene as values."""
    rows = pq.read_table(asset.folder / "truth.parquet").to_pylist()
    return [{**row, "scene": json.loads(row["scene"])} for row in rows]


def good_images(asset: Asset) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the files of all scenes, and what they show."""
    rows = [row for row in truth(asset) if row["path"].count("/") == 1 and row["path"] != "/circle"]
    return [((asset.folder / row["file"]).read_bytes(), row["scene"]) for row in rows]


def upright(data: bytes) -> np.ndarray:
    """Return the pixels of a file as one sees them."""
    with Image.open(io.BytesIO(data)) as image:
        seen = ImageOps.exif_transpose(image)
        if seen.mode in ("RGBA", "P"):
            seen = seen.convert("RGBA")
            seen = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
        return np.asarray(seen.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("assets")


@pytest.fixture(scope="module")
def captioned(root) -> Asset:
    return sample(root)


@pytest.fixture(scope="module")
def asked(root) -> Asset:
    return sample(root, layout="pixmo_qa")


@pytest.fixture(scope="module")
def described(root) -> Asset:
    return sample(root, layout="pixmo_cap")


@pytest.mark.long
def test_every_part_of_a_picture_has_its_colour_and_place_in_every_kind_of_file(captioned):
    for data, scene in good_images(captioned):
        parts = [*scene["things"], *filter(None, [scene["digit"]])]
        assert colours_by_cell(upright(data)) == {(part["column"], part["row"]): part["colour"] for part in parts}


@pytest.mark.parametrize("kind", ["palette", "gif", "jpeg_low", "cmyk", "webp"])
def test_no_kind_of_file_changes_the_colours_of_small_things(kind):
    for index in range(40):
        scene = make_scene(4, index)
        if any(thing.size == "small" and thing.pattern != "plain" for thing in scene.things):
            seen = colours_by_cell(upright(encode(draw_scene(scene, 4, index, 320), kind)))
            assert seen == {(part.column, part.row): part.colour for part in scene.parts}


def colours_by_cell(pixels: np.ndarray) -> dict[tuple[int, int], str]:
    """Return the colour that prevails in each cell which has more than the ground's."""
    found = {}
    for row, band in enumerate(np.array_split(pixels, 3)):
        for column, cell in enumerate(np.array_split(band, 3, axis=1)):
            distances = np.stack([np.abs(cell - colour).max(-1) for colour in COLOURS.values()])
            strong = (np.ptp(cell, axis=-1) > 60) | (cell.max(-1) < 110)  # the ground is pale, and black has no hue
            votes = Counter(distances.argmin(0)[strong & (distances.min(0) < 60)].tolist())
            if votes.total() > 0.004 * cell[..., 0].size:
                found[column, row] = list(COLOURS)[votes.most_common(1)[0][0]]
    return found


def test_as_many_things_are_drawn_as_are_counted():
    import cv2

    for index in range(60):
        scene = make_scene(3, index)
        pixels = np.asarray(draw_scene(scene, 3, index, 300)).astype(int)
        for group in {(t.shape, t.colour) for t in scene.things if t.pattern == "plain"}:
            if scene.count(colour=group[1]) != scene.count(colour=group[1], shape=group[0]) or scene.digit:
                continue
            mask = (np.abs(pixels - COLOURS[group[1]]).max(-1) < 25).astype(np.uint8)
            areas = cv2.connectedComponentsWithStats(mask)[2][1:, cv2.CC_STAT_AREA]
            assert (areas > 40).sum() == scene.count(shape=group[0], colour=group[1])


@pytest.mark.parametrize(
    ("shape", "filled", "hole"),
    [("circle", 0.785, False), ("square", 1.0, False), ("triangle", 0.5, False), ("star", 0.4, False),
     ("ring", 0.55, True), ("heart", 0.66, False), ("cross", 0.51, False), ("diamond", 0.5, False)],
)  # fmt: skip
def test_shapes_are_what_they_are_called(shape, filled, hole):
    scene = Scene((Thing(shape, "blue", "plain", "large", 1, 1),), None, "clouded", 1.0)
    mask = np.abs(np.asarray(draw_scene(scene, 0, 0, 600)).astype(int) - COLOURS["blue"]).max(-1) < 90
    rows, columns = np.nonzero(mask)
    box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert box.mean() == pytest.approx(filled, abs=0.06)
    assert (not box[box.shape[0] // 2, box.shape[1] // 2]) == hole
    assert np.abs(box[:, ::-1] ^ box).mean() < 0.05, "all shapes are symmetrical"
    if shape in ("triangle", "diamond"):
        top, bottom = box[: len(box) // 4].mean(), box[-len(box) // 4 :].mean()
        assert (bottom > 2 * top) == (shape == "triangle")


@pytest.mark.parametrize("pattern", ["striped", "dotted", "checkered"])
def test_patterns_alternate_the_colour_with_a_lighter_one(pattern):
    scene = Scene((Thing("square", "blue", pattern, "large", 1, 1),), None, "clouded", 1.0)
    pixels = np.asarray(draw_scene(scene, 0, 0, 600)).astype(int)[240:360, 240:360]
    blue = np.abs(pixels - COLOURS["blue"]).max(-1) < 40
    assert 0.3 < blue.mean() < 0.85
    edges = np.abs(np.diff(blue, axis=1)).sum() / len(blue)
    assert edges > 1.5, "it changes along every line"


@pytest.mark.parametrize("seed", [0, 1])
def test_every_sentence_of_every_caption_is_true(seed):
    for index in range(SCENES):
        scene = make_scene(seed, index)
        for caption in [short_caption(scene, seed, index), long_caption(scene, seed, index)]:
            for sentence in re.split(r"(?<=\.) ", caption):
                assert holds(sentence, scene.as_json()), f"{sentence!r} in scene {index}"


def test_a_caption_about_another_scene_is_found_out():
    lies = sum(
        not all(holds_or_fails(s, make_scene(0, index + 1).as_json()) for s in re.split(r"(?<=\.) ", caption))
        for index in range(100)
        for caption in [short_caption(make_scene(0, index), 0, index)]
    )
    assert lies >= 99, "the checker would notice"


def holds_or_fails(sentence: str, scene: dict[str, Any]) -> bool:
    """Whether a sentence is true of a scene to which it need not even refer."""
    try:
        return holds(sentence, scene)
    except (AssertionError, ValueError, TypeError):
        return False


def test_captions_are_varied_and_as_long_as_they_should_be(described):
    scenes = [make_scene(0, index) for index in range(SCENES)]
    short = [short_caption(scene, 0, index) for index, scene in enumerate(scenes)]
    assert len(set(short)) > 0.98 * SCENES
    assert len({" ".join(caption.split()[:3]) for caption in short}) > 40, "they begin in many ways"
    sentences = Counter(len(re.split(r"(?<=\.) ", caption)) for caption in short)
    assert sorted(sentences) == [1, 2, 3, 4]
    rows = pq.read_table(described.folder / "list.parquet").to_pylist()
    for row in rows:
        assert 40 <= len(row["caption"].split()) <= 120
        assert len(row["transcripts"]) == 3
        assert "\n" not in row["caption"]
    assert max(Counter(row["caption"] for row in rows).values()) == 1


def test_every_answer_is_right_and_short(asked):
    scenes = {row["url"]: row["scene"] for row in truth(asked)}
    rows = pq.read_table(asked.folder / "list.parquet").to_pylist()
    assert len(rows) > 3 * len(scenes)
    for row in rows:
        assert row["answer"] == answer(row["question"], scenes[row["image_url"]]), row
        assert len(row["answer"].split()) <= 2


def test_yes_and_no_are_balanced_for_every_kind_of_question():
    kinds: dict[str, Counter[str]] = {}
    for index in range(3 * SCENES):
        for question, reply in ((q.question, q.answer) for q in questions(make_scene(0, index), 0, index)):
            if reply in ("yes", "no"):
                kind = " ".join(word for word in question.split() if word in ("left", "above", "number")) or "there"
                kinds.setdefault(kind, Counter())[reply] += 1
    assert kinds.keys() == {"left", "above", "number", "there"}
    for kind, replies in kinds.items():
        assert 0.4 <= replies["yes"] / replies.total() <= 0.6, (kind, replies)


def test_no_answer_is_so_common_that_guessing_pays():
    by_question: dict[str, Counter[str]] = {}
    for index in range(SCENES):
        for one in questions(make_scene(0, index), 0, index):
            by_question.setdefault(" ".join(one.question.split()[:3]), Counter())[one.answer] += 1
    for begin, replies in by_question.items():
        if replies.total() > 50:
            assert max(replies.values()) < 0.72 * replies.total(), (begin, replies)


@pytest.mark.long
def test_equal_seeds_give_equal_bytes_and_other_seeds_others(tmp_path, captioned):
    again, other = files_of(sample(tmp_path)), files_of(sample(tmp_path, seed=1))
    assert again == files_of(captioned)
    same = {name for name in other if other[name] == again.get(name)}
    assert not any(name.startswith(("site/", "list", "truth")) for name in same)


def test_more_images_leave_the_earlier_ones_as_they_are(tmp_path):
    few, many = sample(tmp_path, images=70), sample(tmp_path, images=130)
    old, new = files_of(few), files_of(many)
    assert new["list.tsv"].startswith(old["list.tsv"])
    assert truth(many)[: len(truth(few))] == truth(few)
    images = {name for name in old if name.startswith("site/")}
    assert {name: new.get(name) for name in images} == {name: old[name] for name in images}
    kept = [(asset.folder / "site/000000.jpg").stat().st_ino for asset in (few, many)]
    assert kept[0] == kept[1], "finished units are taken over"


def test_whatever_is_served_is_there_whichever_layout_came_first(captioned, asked, described):
    for asset in (captioned, asked, described):
        for page in load_site(asset.folder).values():
            assert not page.file or (asset.folder / page.file).is_file()
        assert len(list((asset.folder / "site").iterdir())) == 120


def test_the_list_names_every_url_once_with_its_text(captioned):
    lines = (captioned.folder / "list.tsv").read_text().splitlines()
    rows = truth(captioned)
    assert [line.split("\t")[0] for line in lines] == [row["url"] for row in rows]
    assert len({row["url"] for row in rows}) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        _, caption = line.split("\t")
        assert all(holds(sentence, row["scene"]) for sentence in re.split(r"(?<=\.) ", caption))


def test_hashes_in_list_and_truth_are_those_of_the_files(asked):
    rows = truth(asked)
    for row in rows:
        assert row["sha256"] == (sha256((asked.folder / row["file"]).read_bytes()) if row["file"] else "")
    listed = {row["image_url"]: row["image_sha256"] for row in pq.read_table(asked.folder / "list.parquet").to_pylist()}
    assert all(listed[row["url"]] == row["sha256"] for row in rows if row["expected"] == "ok")
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in listed.values())
    assert all(listed[row["url"]] != row["sha256"] for row in rows if row["behaviour"] == "html")


def test_the_site_misbehaves_in_its_share_and_every_way_has_a_known_outcome(tmp_path):
    asset = sample(tmp_path, images=300, misbehaving_share=0.3, side=64)
    rows = truth(asset)
    assert len(rows) == 390
    statuses = {row["expected"] for row in rows}
    assert statuses <= set(STATUSES)
    assert set(STATUSES) - statuses <= {"dns", "tls", "decode_error", "hash_mismatch"}
    pages = load_site(asset.folder)
    assert {page.behaviour for page in pages.values()} == {row["behaviour"] for row in rows}
    assert all(pages[row["path"]].file == row["file"] for row in rows)
    assert sample(tmp_path, images=50, misbehaving_share=0, side=64).manifest.counts["bad_urls"] == 0


def test_files_are_of_all_kinds_that_the_web_has():
    kinds = set()
    for index in range(200):
        scene = make_scene(0, index)
        data = encode(draw_scene(scene, 0, index, 64), file_format(scene, 0, index))
        with Image.open(io.BytesIO(data)) as image:
            kinds.add((image.format, image.mode, image.getexif().get(0x0112, 1)))
    assert {kind[:2] for kind in kinds} == {
        ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("GIF", "P"),
        ("WEBP", "RGB"),
    }  # fmt: skip
    assert {kind[2] for kind in kinds} == {1, 3, 6, 8}


@pytest.mark.parametrize("kind", sorted({*FORMATS, *JPEGS}))
def test_every_kind_of_file_shows_the_picture_upright(kind):
    index = next(k for k in range(100) if make_scene(0, k).colourless == (kind == "grey"))
    picture = draw_scene(make_scene(0, index), 0, index, 160)
    seen = upright(encode(picture, kind))
    wanted = np.asarray(picture.convert("L").convert("RGB") if kind == "grey" else picture).astype(int)
    assert seen.shape == wanted.shape
    assert np.abs(seen - wanted).mean() < 6


def test_copies_are_equal_or_nearly_equal_and_others_are_not(captioned):
    from tasks.image_text.picture import make_picture

    images = [data for data, _ in good_images(captioned)]
    hashes = [make_picture(data, ImageFormat(min_side=16)).phash for data in images]
    near = {(a, b) for a, b in combinations(range(len(images)), 2) if (hashes[a] ^ hashes[b]).bit_count() <= 3}
    copies = {(depicted(k), k) for k in range(len(images)) if depicted(k) != k}
    exact = {(a, b) for a, b in copies if images[a] == images[b]}
    assert exact == {(a, b) for a, b in copies if b % COPIES_EVERY == 0}
    assert len(near & copies) >= 0.8 * len(copies)
    assert len(near - copies) <= 1

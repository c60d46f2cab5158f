"""The index of a shard set: entries that hit their members, splits that never leak nor move, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from configs.image_text import Duplicates, ImageSplits
from storage.assets import Asset, AssetStore
from storage.shard_index import ENTRY, SPLITS
from tasks.image_text.image_splits import check_sides, draw_sides
from tasks.progress import Silent
from tests.image_text.shard_fixtures import Listed, index_of, write_shards

KEEP = Duplicates(exact="keep", near="keep")
HALVES = {"validation_share": 0.3, "test_share": 0.3}


def entries_of(index: Asset, name: str) -> np.ndarray:
    return np.load(index.folder / f"{name}.npy", allow_pickle=False)


def facts_of(index: Asset) -> dict:
    return json.loads((index.folder / "index.json").read_bytes())


def excluded(index: Asset) -> dict[int, dict]:
    return {row["image"]: row for row in pq.read_table(index.folder / "excluded.parquet").to_pylist()}


def read(index: Asset, folder: Path, name: str) -> list[tuple[bytes, dict, int]]:
    """Return (JPEG, JSON, position of the text) of every entry, by nothing but index and tars."""
    shards = facts_of(index)["shards"]
    found = []
    for entry in entries_of(index, name):
        file = os.open(folder / shards[entry["shard"]]["name"], os.O_RDONLY)
        jpeg = os.pread(file, int(entry["jpg_size"]), int(entry["jpg_offset"]))
        facts = json.loads(os.pread(file, int(entry["json_size"]), int(entry["json_offset"])))
        os.close(file)
        found.append((jpeg, facts, int(entry["text"])))
    return found


def side_of(index: Asset, folder: Path) -> dict[int, str]:
    """Return the split of every indexed image; an image in two would fail here."""
    sides: dict[int, str] = {}
    for name in SPLITS:
        for _, facts, _ in read(index, folder, name):
            assert sides.setdefault(int(facts["key"]), name) == name
    return sides


def bits(*positions: int) -> int:
    return sum(1 << p for p in positions)


def test_every_entry_hits_its_image_and_its_text(store, tmp_path):
    images = [
        Listed(i, jpeg=bytes([255, 216, 255, i]) * (i + 1), texts=[{"caption": f"{i}.{k}"} for k in range(1 + i % 3)])
        for i in range(20)
    ]
    images[3].status = images[8].status = "http_404"
    folder = write_shards(tmp_path / "s", images)
    index = index_of(store, folder, **HALVES)
    seen = []
    for name in SPLITS:
        assert entries_of(index, name).dtype == ENTRY
        rows = []
        for jpeg, facts, text in read(index, folder, name):
            image = images[int(facts["key"])]
            assert image.stored
            assert jpeg == image.jpeg
            assert facts["rows"][text]["caption"] == f"{image.image}.{text}"
            rows.append(facts["rows"][text]["row"])
        assert rows == sorted(rows), "by image and row"
        seen += rows
    assert sorted(seen) == [row["row"] for image in images if image.stored for row in image.rows()]
    shards = facts_of(index)["shards"]
    assert [s["name"] for s in shards] == [f"{n:05d}.tar" for n in range(5)]
    assert all((folder / s["name"]).stat().st_size == s["bytes"] for s in shards)


def test_counts_say_what_became_of_the_images(store, tmp_path):
    images = [Listed(i, texts=[{"caption": "a", "templated": i < 3}, {"caption": "b"}]) for i in range(10)]
    images[9].status = "timeout"
    images[7].raw = images[2].raw
    images[8].phash = 0
    index = index_of(store, write_shards(tmp_path / "s", images), **HALVES)
    counts, metrics = index.manifest.counts, index.manifest.metrics
    assert (counts["images"], counts["stored"], counts["indexed"], counts["dup_exact"]) == (10, 9, 8, 1)
    assert (counts["without_texture"], counts["templated_texts"], metrics["share_stored"]) == (1, 3, 0.9)
    assert sum(counts[f"{name}_texts"] for name in SPLITS) == 16
    splits = facts_of(index)["splits"]
    assert sum(part["images"] for part in splits.values()) == 8
    assert all(part["texts"] == len(entries_of(index, name)) for name, part in splits.items())


def test_the_newest_shard_that_lists_an_image_decides(store, tmp_path):
    first = [Listed(i) for i in range(12)]
    for i in (2, 5, 11):
        first[i].status = "timeout"
    folder = write_shards(tmp_path / "s", first)
    again = [Listed(i, jpeg=f"second {i}".encode()) for i in (2, 5, 11)]
    again[1].status = "http_404"
    write_shards(folder, again, per_shard=2, attempt=1)
    write_shards(folder, [Listed(5, jpeg=b"tenth 5")], attempt=10)
    write_shards(folder, [Listed(5, status="dns")], attempt=2)
    index = index_of(store, folder, validation_share=0, test_share=0)
    found = read(index, folder, "train")
    assert [int(facts["key"]) for _, facts, _ in found] == list(range(12)), "sorted by image, each once"
    assert (found[2][0], found[5][0], found[11][0]) == (b"second 2", b"tenth 5", b"second 11")
    assert index.manifest.counts["images"] == 12
    names = [s["name"] for s in facts_of(index)["shards"]]
    assert names[3:] == ["retry1-00000.tar", "retry1-00001.tar", "retry2-00000.tar", "retry10-00000.tar"]


def test_an_image_that_a_later_round_refuses_is_out(store, tmp_path):
    folder = write_shards(tmp_path / "s", [Listed(i) for i in range(4)])
    write_shards(folder, [Listed(1, status="robots_optout")], attempt=1)
    assert set(side_of(index_of(store, folder), folder)) == {0, 2, 3}


def test_empty_splits_are_empty_files(store, tmp_path):
    index = index_of(store, write_shards(tmp_path / "s", [Listed(0)]), validation_share=0, test_share=0)
    assert [len(entries_of(index, name)) for name in SPLITS] == [1, 0, 0]
    assert entries_of(index, "test").dtype == ENTRY


def test_a_split_that_should_have_images_and_has_none_is_told(store, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(Silent, "message", lambda self, text: told.append(text) if "no image" in text else None)
    folder = write_shards(tmp_path / "s", [Listed(0)])
    index_of(store, folder, validation_share=0, test_share=0)
    assert not told
    index_of(store, folder, validation_share=1e-9, test_share=1e-9)
    index_of(store, folder, validation_share=1 - 1e-9, test_share=0)
    of = "raise its share in splits or the number of images"
    assert told == [f"no image is in validation and test; {of}", f"no image is in train; {of}"]


def test_equal_shards_give_equal_indices(tmp_path):
    folder = write_shards(tmp_path / "s", [Listed(i) for i in range(30)])
    prints = {index_of(AssetStore(tmp_path / name), folder).fingerprint for name in ("one", "two")}
    assert len(prints) == 1


def test_of_equal_bytes_the_first_image_stays(store, tmp_path):
    images = [Listed(i) for i in range(9)]
    images[6].raw = images[4].raw = images[1].raw
    for image in images:
        image.phash = 0
    folder = write_shards(tmp_path / "s", images)
    index = index_of(store, folder)
    assert set(side_of(index, folder)) == {0, 1, 2, 3, 5, 7, 8}
    assert excluded(index)[6] == {
        "image": 6, "key": "000000006", "shard": "00001.tar", "reason": "dup_exact", "of": "000000001", "distance": 0,
    }  # fmt: skip


def test_near_duplicates_go_by_the_distance_to_images_that_stay(store, tmp_path):
    """0 ~ 1 ~ 2, but 0 and 2 are 4 apart: 2 stays, since 1 does not. 3 equals 1 byte for byte."""
    images = [Listed(0, phash=bits(60)), Listed(1, phash=bits(60, 1, 2)), Listed(2, phash=bits(60, 1, 2, 3, 4))]
    images += [Listed(3, raw=images[1].raw, phash=images[1].phash), Listed(4, phash=bits(60, 1))]
    folder = write_shards(tmp_path / "s", images, per_shard=2)
    index = index_of(store, folder, Duplicates(distance=2))
    out = {i: (row["reason"], row["of"], row["distance"]) for i, row in excluded(index).items()}
    first = "000000000"
    assert out == {1: ("dup_near", first, 2), 3: ("dup_near", first, 2), 4: ("dup_near", first, 1)}
    assert set(side_of(index, folder)) == {0, 2}
    exact_only = index_of(store, folder, Duplicates(distance=2, near="keep"), validation_share=0, test_share=0)
    assert {i: row["of"] for i, row in excluded(exact_only).items()} == {3: "000000001"}


def test_images_without_texture_are_near_nothing(store, tmp_path):
    images = [Listed(i, phash=0) for i in range(8)] + [Listed(8, phash=1), Listed(9, phash=bits(0, 1))]
    index = index_of(store, write_shards(tmp_path / "s", images), Duplicates(distance=3))
    assert set(excluded(index)) == {9}
    assert index.manifest.counts["without_texture"] == 8


@pytest.mark.parametrize("rules", [Duplicates(), KEEP, Duplicates(exact="keep")])
def test_duplicates_never_stand_on_two_sides(store, tmp_path, rules):
    random = np.random.default_rng(3)
    centres = random.integers(1, 2**63, 25)
    images = []
    for i in range(300):
        flips = bits(*random.choice(64, random.integers(0, 4), replace=False).tolist())
        images.append(Listed(i, phash=int(centres[random.integers(25)]) ^ flips))
        if i % 7 == 6:
            twin = images[random.integers(i)]
            images[i] = Listed(i, raw=twin.raw, phash=twin.phash)
    folder = write_shards(tmp_path / "s", images, per_shard=64)
    index = index_of(store, folder, rules, **HALVES)
    sides = side_of(index, folder)
    assert set(sides.values()) == set(SPLITS)
    for one in sides:
        for other in sides:
            if (images[one].phash ^ images[other].phash).bit_count() <= rules.distance:
                assert sides[one] == sides[other]
    for image, row in excluded(index).items():
        assert int(row["of"]) in sides
        assert (images[image].phash ^ images[int(row["of"])].phash).bit_count() == row["distance"]
    assert len(sides) + len(excluded(index)) == 300
    if rules is KEEP:
        assert {row["reason"] for row in excluded(index).values()} <= {"dup_two_sides"}
        assert len(sides) > 150


def test_all_kept_near_duplicates_follow_the_first(store, tmp_path):
    """A chain, each link one bit from the next and more than the distance from those before."""
    chain = [Listed(i, phash=bits(63, *range(2 * i))) for i in range(12)]
    twins = [Listed(12 + i, raw=chain[i].raw, phash=chain[i].phash) for i in range(12)]
    others = [Listed(24 + i) for i in range(40)]
    folder = write_shards(tmp_path / "s", [*chain, *twins, *others], per_shard=10)
    for seed in range(4):
        index = index_of(store, folder, Duplicates(exact="keep", near="keep", distance=2), seed=seed, **HALVES)
        sides = side_of(index, folder)
        assert {sides[i] for i in range(24)} == {SPLITS[int(draw_sides([chain[0].sha256], _splits(seed))[0])]}
        assert len(sides) == 64


def _splits(seed: int) -> ImageSplits:
    return ImageSplits(seed=seed, **HALVES)


@pytest.mark.parametrize("rules", [Duplicates(), KEEP])
def test_more_images_and_other_shards_move_nothing(store, tmp_path, rules):
    random = np.random.default_rng(5)
    images = [
        Listed(i, phash=int(random.integers(1, 2**13)) << 32 | 1 << 63, texts=[{"caption": "x"}] * (1 + i % 2))
        for i in range(160)
    ]
    before = index_of(store, few := write_shards(tmp_path / "few", images[:90], per_shard=16), rules, **HALVES)
    after = index_of(store, many := write_shards(tmp_path / "many", images, per_shard=50), rules, **HALVES)
    sides_before, sides_after = side_of(before, few), side_of(after, many)
    assert {image: side for image, side in sides_after.items() if image < 90} == sides_before
    assert any(image >= 90 for image in sides_after)
    was, now = excluded(before), excluded(after)
    assert [now[i]["of"] for i in was] == [was[i]["of"] for i in was]
    assert {i for i in now if i < 90} == set(was)


def test_shares_are_thresholds():
    hashes = [Listed(i).sha256 for i in range(4000)]
    small = draw_sides(hashes, ImageSplits(validation_share=0.05, test_share=0.05))
    large = draw_sides(hashes, ImageSplits(validation_share=0.05, test_share=0.2))
    assert np.allclose(np.bincount(large) / 4000, [0.75, 0.05, 0.2], atol=0.02)
    assert set(zip(small.tolist(), large.tolist(), strict=True)) == {(0, 0), (0, 2), (1, 1), (2, 2)}
    other = draw_sides(hashes, ImageSplits(validation_share=0.05, test_share=0.2, seed=1))
    assert 0.5 < (other == large).mean() < 0.75, "another seed, another split"
    assert not draw_sides(hashes, ImageSplits(validation_share=0, test_share=0)).any()


def test_the_check_finds_an_image_on_two_sides():
    digests = np.array([[1, 1], [1, 2], [3, 3], [1, 1]], np.uint64)
    check_sides(digests, np.array([0, 1, 2, 0], np.uint8))
    with pytest.raises(AssertionError, match="two sides"):
        check_sides(digests, np.array([0, 1, 2, 1], np.uint8))


def test_the_check_finds_it_among_others_whose_digests_are_half_the_same():
    digests = np.array([[1, 9], [5, 2], [7, 2], [5, 2], [5, 3], [6, 1], [6, 4]], np.uint64)
    check_sides(digests, np.array([0, 1, 0, 1, 2, 0, 1], np.uint8))
    with pytest.raises(AssertionError, match=f"{5:016x}{2:016x} is on two sides"):
        check_sides(digests, np.array([0, 0, 1, 2, 0, 0, 0], np.uint8))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


def _lose_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


@pytest.mark.parametrize(
    ("file", "harm", "words"),
    [
        ("00001_stats.json", Path.unlink, "never finished"),
        ("00001_stats.json", _cut, "_stats.json is damaged"),
        ("00001.tar", Path.unlink, "00001.tar is missing"),
        ("00001.tar", _cut, r"00001.tar has \d+ bytes"),
        ("00001.parquet", Path.unlink, "table is missing"),
        ("00001.parquet", _cut, "table is missing or damaged"),
        ("00001.parquet", _lose_rows, "3 rows, its statistics say 4"),
    ],
)
def test_a_shard_that_is_not_whole_is_named(store, tmp_path, file, harm, words):
    folder = write_shards(tmp_path / "s", [Listed(i) for i in range(12)])
    if file.endswith(".json") and harm is _cut:
        (folder / file).write_text('{"count": 4')
    else:
        harm(folder / file)
    with pytest.raises(ValueError, match=f"shard 00001 is not whole: .*{words}.*run the pipeline again"):
        index_of(store, folder)


def test_no_stored_image_is_said_with_the_reasons(store, tmp_path):
    images = [Listed(i, status="http_404" if i else "dns") for i in range(5)]
    with pytest.raises(ValueError, match=r"of 5 listed ones \(http_404 4, dns 1\); check the addresses"):
        index_of(store, write_shards(tmp_path / "s", images))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"of 0 listed ones \(there are no shards\)"):
        index_of(store, tmp_path / "empty")

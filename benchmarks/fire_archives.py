"""Raw fire archives to measure on: generated fires in crops of one size, and the shared archive where it is present.

Generated crops are only as large as their fires. The archives that the wildfire pipeline is meant for have crops of
400 x 400 pixels whatever burns in them, and so do these.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pipelines import session
from benchmarks.process import REPOSITORY
from configs.fire_data import Decoding, FireSplits, Tokens
from configs.fire_sample import SampleFires
from storage.assets import Asset
from tasks.fire.archive import ASSET_FOLDER, INDICES, archive_files, archive_names
from tasks.fire.cache import fire_cache
from tasks.fire.records import fire_records
from tasks.fire.split import fire_split
from tasks.samples.fire import UNBURNT, fire_sample
from tasks.stage import raw_input

SHARED = "MILLRACE_SHARED_DATA"
"""Environment variable with the folder of shared data."""


def shared_archive() -> Path | None:
    """Return the archive of 320 fires on a real landscape; None where it is absent."""
    data = Path(os.environ.get(SHARED, REPOSITORY.parent / "shared" / "data"))
    return data / "fire" / "zona60" if (data / "fire" / "zona60").is_dir() else None


def generate(source: SampleFires, work: Path, side: int) -> Path:
    """Generate fires and give each a crop of side x side pixels; return the archive's folder.

    Isochrones hold the same pixels as fire frames but are compressed otherwise, so that no reader is spared one of
    them by its equal bytes.
    """
    with session(work / "sample"):
        small = fire_sample(source=source).folder / ASSET_FOLDER
    archive = work / "archive"
    shutil.copytree(small / "landscape", archive / "landscape")
    boxes = json.loads((small / INDICES).read_bytes())
    wide = {n: _widen(box, (source.rows, source.columns), side) for n, box in boxes.items()}
    (archive / INDICES).write_text(json.dumps(wide))
    for number, box in boxes.items():
        corner = box[0] - wide[number][0], box[2] - wide[number][2]
        for kind in ("fire_frames", "isochrones"):
            for path in sorted((small / kind / f"sequence_{int(number):03d}").iterdir()):
                _enlarge(path, archive / path.relative_to(small), corner, side, 9 if kind == "fire_frames" else 6)
    shutil.rmtree(work / "sample")
    return archive


def _widen(box: Sequence[int], shape: tuple[int, int], side: int) -> list[int]:
    """Return the box of side x side pixels around a smaller one, inside the landscape."""
    bounds: list[int] = []
    for (first, last), length in zip((box[:2], box[2:]), shape, strict=True):
        start = min(max((first + last - side) // 2, 0), length - side)
        bounds += [start, start + side]
    return bounds


def _enlarge(source: Path, path: Path, corner: tuple[int, int], side: int, compression: int) -> None:
    from PIL import Image

    whole = Image.new("RGBA", (side, side), UNBURNT)
    with Image.open(source) as image:
        whole.paste(image, (corner[1], corner[0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path, "PNG", compress_level=compression)


def describe_archive(archive: Path) -> dict[str, Any]:
    """Return what a reader of the results has to know."""
    boxes = np.array(list(json.loads((archive / INDICES).read_bytes()).values()))
    sides = boxes[:, 1::2] - boxes[:, ::2]
    return {
        "fires": len(boxes),
        "frames": count_frames(archive),
        "crop_sides": {"least": int(sides.min()), "median": float(np.median(sides)), "most": int(sides.max())},
        "file_megabytes": round(sum(path.stat().st_size for path in archive_files(str(archive))) / 1e6, 1),
    }


def count_frames(archive: Path) -> int:
    """Return the number of fire frames; there are as many isochrones."""
    return sum(1 for _ in archive.glob("fire_frames/sequence_*/*.png"))


def read_all(archive: Path) -> None:
    """Read every file once, so that all subjects find them in the page cache."""
    for path in archive_files(str(archive)):
        path.read_bytes()


def fire_numbers(archive: Path) -> list[int]:
    """Return the numbers of all fires."""
    return sorted(int(number) for number in json.loads((archive / INDICES).read_bytes()))


def build_records(archive: Path, patch: int) -> Asset:
    """Run the stages up to the records of an archive, in the active session."""
    raw = raw_input("fire_archive", archive_files(str(archive)))
    return fire_records(
        raw=raw, names=archive_names(raw), decoding=Decoding(), tokens=Tokens(patch=patch), on_broken="error"
    )


def build_cache(archive: Path, root: Path, patch: int, *, train: int, validation: int) -> tuple[Asset, Asset]:
    """Return cache and split of an archive: the first fires train, the next validate, the rest is test.

    Crops of one size on one landscape overlap, so the parts share land: good enough for speed, never for skill.
    """
    numbers = fire_numbers(archive)
    splits = FireSplits(
        method="lists",
        keep_apart="none",
        weather="none",
        training=tuple(numbers[:train]),
        validation=tuple(numbers[train : train + validation]),
        test=tuple(numbers[train + validation :]),
    )
    with session(root):
        cache = fire_cache(records=build_records(archive, patch))
        return cache, fire_split(cache=cache, splits=splits)

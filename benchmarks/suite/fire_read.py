"""Reading training samples of fires.

Batches of eight random samples as training reads them: the last six frames at most, windows of 20 x 20 tokens of 8 x
8 pixels that hold part of the front, turned and flipped, the next frame as target. 80 generated fires of 2 to 12
frames in crops of 400 x 400 pixels. Both readers have a process of their own; files are in the page cache; rounds are
interleaved.

Ours is the data set out of the token cache, with collation into tensors. Its arrays lie in memory after the first
use, as in a training, and reading them is not timed. The peer has no cache: for each sample it decodes the PNG frames
and the isochrone with PIL, reads the bands' window with rasterio and the weather file, and cuts and turns the same
window; there it stops: it pools nothing, standardises nothing and makes no batch. Before the clock starts both must
return the same pixels of last frame and target.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.fire_archives import build_cache, describe_archive, generate, read_all, shared_archive
from benchmarks.process import Program
from configs.fire_sample import SampleFires

PATCH = 8
HISTORY = 6
WINDOW_TOKENS = 20
BATCH = 8


def run(bench: Bench) -> list[Figure]:
    """Measure our reader and its peer on a generated archive, and on the shared one where it is present."""
    fires, side = (6, 200) if bench.quick else (80, 400)
    bench.say(f"making {fires} fires")
    land, crop = (264, 96) if bench.quick else (600, 160)
    archive = generate(SampleFires(fires=fires, rows=land, columns=land, largest_crop=crop), bench.work, side)
    results = _measure(bench, archive, bench.work / "assets")
    detail: dict[str, Any] = {
        "data": describe_archive(archive), "patch": PATCH, "history": HISTORY, "window_tokens": WINDOW_TOKENS,
        "batch": BATCH, "rounds": results,
    }  # fmt: skip
    shared = shared_archive()
    if shared and not bench.quick:
        theirs = _measure(bench, shared, bench.work / "shared-assets")
        ratios = {kind: rounded(_ratio(theirs, kind)) for kind in ("cpu", "wall")}
        detail["shared_archive"] = {"data": describe_archive(shared), "rounds": theirs, "ratios": ratios}
    return [_figure(bench, results, detail)]


def _measure(bench: Bench, archive: Path, root: Path) -> dict[str, list[dict[str, float]]]:
    rounds, seconds = (2, 0.2) if bench.quick else (9, 1.5)
    cache, split = build_cache(archive, root, PATCH, train=4, validation=1)
    read_all(archive)
    task = {
        "cache": str(cache.folder), "split": str(split.folder), "archive": str(archive), "history": HISTORY,
        "window_tokens": WINDOW_TOKENS,
    }  # fmt: skip
    draw = _Draw(cache.folder, split.folder)
    with (
        Program("fire_reader", task | {"reader": "millrace"}) as ours,
        Program("fire_reader", task | {"reader": "raw"}) as theirs,
    ):
        programs = {"millrace": ours, "raw": theirs}
        checked = [where for batch in draw.batches(8) for where in batch]
        if ours.ask({"check": checked}) != theirs.ask({"check": checked}):
            raise RuntimeError("the cache gives other pixels than the raw files; there is nothing to compare")
        bench.say(f"{rounds} rounds of {seconds} s for each of {', '.join(programs)}")
        reads = {
            name: lambda program=program: program.ask({"batches": draw.batches(400), "seconds": seconds})
            for name, program in programs.items()
        }
        interleave(1, reads)
        return interleave(rounds, reads)


class _Draw:
    """Draws random samples, and says where our data set will cut and how it will turn each of them."""

    def __init__(self, cache: Path, split: Path, window_tokens: int = WINDOW_TOKENS) -> None:
        from tasks.fire.dataset import FireDataset

        self._samples = FireDataset(cache, split, "all", history=HISTORY, window_tokens=window_tokens, augment=True)
        self._random = np.random.default_rng(0)

    def batches(self, count: int) -> list[list[list[Any]]]:
        """Return requests for so many batches."""
        drawn = self._random.integers(0, [len(self._samples), 2**31], (count, BATCH, 2)).tolist()
        return [[[index, seed, *self._where(index, seed)] for index, seed in batch] for batch in drawn]

    def _where(self, index: int, seed: int) -> list[Any]:
        """Repeat the draws of `FireDataset.sample`; the check of pixels would show a difference."""
        from tasks.fire.turns import Turn

        fire, step = self._samples.samples[index]
        crop, random = self._samples.cache.crops[fire], np.random.default_rng(seed)
        gy0, gy1, gx0, gx1 = self._samples._window(fire, step, (0, crop.rows, 0, crop.columns), random)
        turn = Turn.draw(random)
        rows = gy0 * PATCH, min(gy1 * PATCH, crop.height)
        columns = gx0 * PATCH, min(gx1 * PATCH, crop.width)
        name = self._samples.cache.names[fire]
        return [name, step, *rows, *columns, turn.transpose, turn.flip_rows, turn.flip_columns]


def _rates(results: dict[str, list[dict[str, float]]], who: str, kind: str) -> list[float]:
    return [round["samples"] / round[kind] for round in results[who]]


def _ratio(results: dict[str, list[dict[str, float]]], kind: str) -> float:
    return median_ratio(_rates(results, "millrace", kind), _rates(results, "raw", kind))


def _figure(bench: Bench, results: dict[str, list[dict[str, float]]], detail: dict[str, Any]) -> Figure:
    cpu, wall = (
        {who: statistics.median(_rates(results, who, kind)) for who in ("millrace", "raw")} for kind in ("cpu", "wall")
    )
    notes = [
        f"Millrace {cpu['millrace']:.0f}, raw files {cpu['raw']:.3g} samples per CPU-second.",
        f"By wall time {_ratio(results, 'wall'):.3g} x: {wall['millrace']:.0f} against {wall['raw']:.3g} samples per "
        "second.",
    ]
    if "shared_archive" in detail:
        shared = detail["shared_archive"]
        sides = shared["data"]["crop_sides"]
        notes.append(
            f"On {shared['data']['fires']} fires of a real landscape in crops of {sides['least']} to {sides['most']} "
            f"pixels, half of them below {sides['median']:.0f}, {shared['ratios']['cpu']:.3g} x."
        )
    return bench.figure(
        "fire_read_vs_raw",
        what="Training samples of fires per CPU-second",
        value=rounded(_ratio(results, "cpu")),
        unit="x",
        aim=">= 20",
        peer="PNG, GeoTIFF and CSV read per sample with PIL and rasterio",
        peer_value=rounded(cpu["raw"]),
        peer_unit="samples per CPU-second",
        notes=tuple(notes),
        detail=detail,
    )

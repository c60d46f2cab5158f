"""Building the patch-token cache of a fire archive.

160 generated fires of 2 to 12 frames in crops of 400 x 400 pixels, tokens of 8 x 8. Every subject starts anew in each
round, in its own process with its imports done; source files are in the page cache; rounds are interleaved.

Ours is everything that a user waits for, from unknown files to a verified cache: hashing of the raw files, checks of
every image, masks, class histograms, packed targets, the SHA-256 of every file, and flushing to disk; with two worker
processes, whose start and imports count too. The peer is what the wildfire document describes, in one thread of PIL
and numpy: it decodes the same images, averages frames and bands over patches with nodata as a value, and saves .npy
files; it keeps no targets and no masks and checks nothing. Ours fills both cores and the peer one, so this ratio is
of wall time. Frames and isochrones differ in their bytes; where they are equal, as in many archives, ours decodes
them once.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.fire_archives import count_frames, describe_archive, generate, read_all, shared_archive
from benchmarks.process import run_program
from configs.fire_sample import SampleFires
from storage.token_cache import TokenCache

WORKERS = "2"
PATCH = 8
PARTS = ("hashing", "fire_records", "fire_cache")
HALF_PRECISION = 1e-3

Seconds = dict[str, Any]


def run(bench: Bench) -> list[Figure]:
    """Measure our stages and the peer on a generated archive, and on the shared one where it is present."""
    fires, side = (6, 96) if bench.quick else (160, 400)
    land = max(side + 64, 128) if bench.quick else 600
    bench.say(f"making {fires} fires")
    source = SampleFires(fires=fires, rows=land, columns=land, largest_crop=96 if bench.quick else 160)
    archive = generate(source, bench.work, side)
    rounds = 1 if bench.quick else 5
    results = _measure(bench, archive, rounds)
    detail: dict[str, Any] = {
        "data": describe_archive(archive), "patch": PATCH, "workers": int(WORKERS), "rounds": results,
    }  # fmt: skip
    shared = shared_archive()
    if shared and not bench.quick:
        theirs = _measure(bench, shared, rounds)
        detail["shared_archive"] = {"data": describe_archive(shared), "rounds": theirs, "ratios": _ratios(theirs)}
    return [_figure(bench, count_frames(archive), results, detail)]


def _measure(bench: Bench, archive: Path, rounds: int) -> dict[str, list[Seconds]]:
    read_all(archive)
    bench.say(f"{rounds} rounds on {count_frames(archive)} frames")
    results = interleave(rounds, _subjects(bench.work, archive))
    _require_equal(bench.work / "pooled", Path(results["millrace"][-1].pop("cache")))
    for result in results["millrace"]:
        result.pop("cache", None)
    return results


def _subjects(work: Path, archive: Path) -> dict[str, Callable[[], Seconds]]:
    task = {"archive": str(archive), "patch": PATCH}

    def millrace() -> Seconds:
        root = work / "assets"
        shutil.rmtree(root, ignore_errors=True)
        answer = run_program("build_fire_cache", root=str(root), workers=WORKERS, **task)
        parts = {f"{part}_{kind}": answer[part][kind] for part in PARTS for kind in ("cpu", "wall")}
        whole = {kind: sum(parts[f"{part}_{kind}"] for part in PARTS) for kind in ("cpu", "wall")}
        return {"cache": answer["cache"], **whole, **parts}

    def peer(isochrones: bool) -> Seconds:
        folder = work / "pooled"
        shutil.rmtree(folder, ignore_errors=True)
        return run_program("pool_fire_images", folder=str(folder), isochrones=isochrones, **task)

    return {"millrace": millrace, "pil": lambda: peer(True), "pil_frames_only": lambda: peer(False)}


def _require_equal(pooled: Path, folder: Path) -> None:
    """Both must find the same burnt shares, wherever a whole token can burn."""
    cache = TokenCache.open(folder)
    for fire, name in enumerate(cache.names):
        whole = cache.static(fire).domain_share == 1
        ours, theirs = cache.fire_share(fire)[:, whole], np.load(pooled / name / "fire_tokens.npy")[:, whole]
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=HALF_PRECISION):
            raise RuntimeError(f"{name} has other tokens than the peer's; there is nothing to compare")


def _ratios(results: dict[str, list[Seconds]]) -> dict[str, dict[str, float]]:
    """Return how many times faster ours is than each peer, by kind of time."""
    return {
        peer: {
            kind: rounded(median_ratio([r[kind] for r in results[peer]], [r[kind] for r in results["millrace"]]))
            for kind in ("wall", "cpu")
        }
        for peer in results
        if peer != "millrace"
    }


def _figure(bench: Bench, frames: int, results: dict[str, list[Seconds]], detail: dict[str, Any]) -> Figure:
    ratios = _ratios(results)
    wall = {who: frames / statistics.median(r["wall"] for r in rounds) for who, rounds in results.items()}
    parts = {part: statistics.median(r[f"{part}_wall"] for r in results["millrace"]) for part in PARTS}
    notes = [
        f"Millrace {wall['millrace']:.0f} frames per second ({', '.join(f'{p} {s:.2f} s' for p, s in parts.items())}), "
        f"the peer {wall['pil']:.0f}.",
        f"By CPU time {ratios['pil']['cpu']:.3g} x; against a peer that leaves out the isochrones, and so has no "
        f"targets, {ratios['pil_frames_only']['wall']:.3g} x by wall time.",
    ]
    if "shared_archive" in detail:
        shared = detail["shared_archive"]
        sides = shared["data"]["crop_sides"]
        notes.append(
            f"On {shared['data']['fires']} fires of a real landscape in crops of {sides['least']} to {sides['most']} "
            f"pixels {shared['ratios']['pil']['wall']:.3g} x by wall time, {shared['ratios']['pil']['cpu']:.3g} x by "
            "CPU time."
        )
    return bench.figure(
        "fire_cache_vs_pil",
        what="Fire cache with all masks, 2 cores, frames per second",
        value=ratios["pil"]["wall"],
        unit="x",
        aim=">= 2",
        peer="PIL and numpy, single-thread mean-pooling without masks",
        peer_value=rounded(wall["pil"]),
        peer_unit="frames per second",
        notes=tuple(notes),
        detail={**detail, "ratios": ratios},
    )

"""Resuming a loader in the middle of an epoch.

A sampler over as many samples as CC12M has rows is made, loads the state that was kept at sample 10 000 000, and gives
the indices of its next global batch of 256; medians over many seeds. The order is that of training from shards: blocks
of 256 neighbours, shuffled in windows of 16. Nothing that was read before is read or counted again.
"""

from __future__ import annotations

import statistics
import time

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from storage.sampling import BLOCK, KeyedBatchSampler, LoaderState

SAMPLES = 12_423_374
SAMPLE = 10_000_000
BATCH = 256


def run(bench: Bench) -> list[Figure]:
    """Measure both orders."""
    times = 20 if bench.quick else 400
    bench.say(f"{times} times for each order")
    found = {name: _microseconds(block, times) for name, block in (("blocks", BLOCK), ("full", None))}
    medians = {name: statistics.median(values) for name, values in found.items()}
    late = statistics.quantiles(found["blocks"], n=20)[-1]
    return [
        bench.figure(
            "loader_seek_microseconds",
            what="Positioning a loader at sample 10 000 000 until its next batch's indices are there",
            value=rounded(medians["blocks"]),
            unit="us",
            aim="< 1000",
            notes=(f"95 % within {late:.0f} us; with a full shuffle in place of blocks {medians['full']:.0f} us.",),
            detail={"samples": SAMPLES, "batch": BATCH, "block": BLOCK, "times": times, "medians": medians},
        )
    ]


def _microseconds(block: int | None, times: int) -> list[float]:
    found = []
    for seed in range(times):
        kept = KeyedBatchSampler(SAMPLES, BATCH, seed, block=block).state(SAMPLE // BATCH).to_dict()
        begin = time.perf_counter()
        sampler = KeyedBatchSampler(SAMPLES, BATCH, seed, block=block)
        sampler.load_state(LoaderState.from_dict(kept))
        indices = next(iter(sampler))
        found.append(1e6 * (time.perf_counter() - begin))
        if len(set(indices)) != BATCH:
            raise RuntimeError(f"the batch at sample {SAMPLE} has {len(set(indices))} different samples, not {BATCH}")
    return found

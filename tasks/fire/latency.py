"""How long one prediction takes, from the cache to a mask."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from storage.fire_split import Part
from tasks.fire.evaluation import Contender, load_batch


@dataclass(frozen=True)
class Latency:
    """Milliseconds of single predictions."""

    p50: float
    p95: float
    height: int
    """Rows of the crop that was predicted, with its padding."""
    width: int
    frames: int
    """Frames of history."""
    threads: int
    """Threads that torch was allowed."""
    predictions: int


def measure_latency(contender: Contender, part: Part, repeats: int, warm_up: int = 3) -> Latency:
    """Time read, collate, predict and threshold for the part's largest sample with the longest history."""
    import torch

    samples = contender.samples(part)
    index = _largest(contender, part)
    seconds = []
    with torch.inference_mode():
        for _ in range(warm_up + repeats):
            begin = time.perf_counter()
            batch = load_batch(samples, [index])
            mask = contender.predict(batch) >= (contender.threshold or 0.5)
            seconds.append(time.perf_counter() - begin)
    p50, p95 = np.percentile(np.array(seconds[warm_up:]) * 1e3, [50, 95])
    _, height, width = mask.shape
    return Latency(float(p50), float(p95), height, width, batch.fire.shape[1], torch.get_num_threads(), repeats)


def _largest(contender: Contender, part: Part) -> int:
    """Index of the last sample of the fire with the most pixels x frames."""
    samples = contender.samples(part)
    last = {fire: index for index, (fire, _) in enumerate(samples.samples)}

    def pixels(index: int) -> int:
        batch = load_batch(samples, [index])
        return batch.age.numel() * batch.fire.shape[1]

    return max(last.values(), key=lambda index: (pixels(index), -index))

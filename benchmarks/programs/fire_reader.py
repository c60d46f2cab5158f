"""Serves rounds of training samples by one reader: ours from the token cache, or its peer from raw files.

Arguments: reader, cache and split (ours), archive (the peer). A sample is named by a request as [index, seed, fire,
t, y0, y1, x0, x1, transpose, flip rows, flip columns]: ours draws window and turn from index and seed, and the peer
is told them.

`{"check": [...]}` answers with a digest of last frame and target of each sample.
`{"batches": [...], "seconds": s}` reads batches in that order until the time is over, at least two.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.stopwatch import Stopwatch

GREEN = 231

Where = Sequence[Any]
Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Last frame and target of a sample."""
Reader = tuple[Callable[[Sequence[Where]], Any], Callable[[Where], Masks]]
"""How a batch is read, and how the masks of one sample are."""


def _millrace(task: dict[str, Any]) -> Reader:
    """Our data set; its arrays are in memory after the first use, as in a training."""
    from tasks.fire.dataset import FireDataset, collate

    samples = FireDataset(
        Path(task["cache"]),
        Path(task["split"]),
        "all",
        history=task["history"],
        window_tokens=task["window_tokens"],
        augment=True,
    )

    def masks(where: Where) -> Masks:
        sample = samples.sample(where[0], where[1])
        return sample.age > 0, sample.target

    return lambda batch: collate([samples.sample(index, seed) for index, seed, *_ in batch]), masks


def _raw(task: dict[str, Any]) -> Reader:
    """PIL and rasterio on the raw files, sample by sample; names, boxes and the open raster are kept."""
    import rasterio
    from PIL import Image
    from rasterio.windows import Window

    from tasks.fire.turns import Turn

    archive = Path(task["archive"])
    raster = rasterio.open(archive / "landscape/Input_Geotiff.tif")
    boxes = json.loads((archive / "landscape/indices.json").read_bytes())
    weathers = (archive / "landscape/WeatherHistory.csv").read_text().splitlines()
    paths = {
        (kind, folder.name): sorted(folder.iterdir())
        for kind in ("fire_frames", "isochrones")
        for folder in (archive / kind).iterdir()
    }

    def mask(path: Path, rows: slice, columns: slice) -> NDArray[np.bool_]:
        with Image.open(path) as image:
            return np.asarray(image)[rows, columns, 1] == GREEN

    def read(where: Where) -> dict[str, NDArray[Any]]:
        _, _, fire, step, y0, y1, x0, x1, *turns = where
        number = int(fire.removeprefix("sequence_"))
        turn, rows, columns = Turn(*turns), slice(y0, y1), slice(x0, x1)
        frames = paths["fire_frames", fire][max(0, step + 1 - task["history"]) : step + 1]
        top, _, left, _ = boxes[str(number)]
        bands = raster.read(window=Window(left + x0, top + y0, x1 - x0, y1 - y0))
        name = weathers[number - 1].rpartition("/")[2]
        with (archive / "landscape/Weathers" / name).open(newline="") as file:
            wind = [[float(row["WS"]), float(row["WD"])] for row in csv.DictReader(file)]
        maps = {
            "frames": np.stack([mask(path, rows, columns) for path in frames]),
            "target": mask(paths["isochrones", fire][step + 1], rows, columns),
            "bands": bands,
            "valid": bands != raster.nodata,
        }
        turned = {key: np.ascontiguousarray(turn.map(values)) for key, values in maps.items()}
        return turned | {"wind": np.array(wind[max(0, step + 1 - task["history"]) : step + 1], np.float32)}

    def masks(where: Where) -> Masks:
        sample = read(where)
        return sample["frames"][-1], sample["target"]

    return lambda batch: [read(where) for where in batch], masks


READERS = {"millrace": _millrace, "raw": _raw}


def serve(task: dict[str, Any]) -> None:
    """Answer requests until standard input ends."""
    read, masks = READERS[task["reader"]](task)
    for line in sys.stdin:
        request = json.loads(line)
        if "check" in request:
            answer: Any = [_digest(masks(where)) for where in request["check"]]
        else:
            answer = _round(read, request["batches"], request["seconds"])
        print(json.dumps(answer), flush=True)


def _digest(masks: Masks) -> str:
    shape = masks[0].shape
    return hashlib.sha256(repr(shape).encode() + b"".join(np.packbits(mask).tobytes() for mask in masks)).hexdigest()


def _round(read: Callable[[Sequence[Where]], Any], batches: Sequence[Any], seconds: float) -> dict[str, float]:
    done = samples = 0
    end = time.perf_counter() + seconds
    with Stopwatch() as watch:
        for batch in batches:
            read(batch)
            done, samples = done + 1, samples + len(batch)
            if done >= 2 and time.perf_counter() > end:
                break
    return {"samples": samples, **watch.as_json()}


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))

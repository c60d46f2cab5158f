"""The stage that packs all records into one patch-token cache."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.assets import Asset
from storage.token_cache import CacheWriter
from tasks.fire.record import FOLDER
from tasks.fire.records import INDEX, LANDSCAPE_FILE
from tasks.stage import Job, StageResult, stage

RAGGED = {
    "static/mean": "mean", "static/share": "share", "static/histogram": "histogram",
    "static/class_share": "class_share", "token/domain_share": "domain_share", "token/footprint": "footprint",
    "fire/share": "fire", "wind/vector": "wind", "wind/valid": "wind_valid",
    "px/fire": "frames", "px/target": "targets", "px/domain": "domain",
}  # fmt: skip
"""Array of the cache by the array of a record."""
FLAT = ("fire/share",)


@stage("fire_cache")
def fire_cache(job: Job, *, records: Asset) -> StageResult:
    """Write one Zarr v3 group of all fires and the landscape; same records, same bytes."""
    from tasks.fire.landscape import Landscape

    index = json.loads((records.folder / INDEX).read_bytes())
    fires, patch = index["fires"], index["patch"]
    paths = [records.folder / FOLDER / f"{fire['name']}.safetensors" for fire in fires]
    writer = CacheWriter(job.folder)
    sizes = _write_ragged(job, writer, paths)
    sequences = _sequences(fires, sizes, patch)
    for name, values in sequences.items():
        writer.write(f"seq/{name}", values)
    for name, lengths in _lengths(sequences).items():
        writer.write(f"off/{name}", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
    land = Landscape.load(records.folder / LANDSCAPE_FILE)
    for name, array in {"values": land.values, "valid": land.values_valid, "classes": land.classes}.items():
        writer.write(f"landscape/{name}", array)
    attributes = {
        "patch": patch,
        "continuous": land.continuous,
        "categorical": land.categorical,
        "fuel": land.fuel,
        "decoding": index["decoding"],
        **land.facts,
    }
    writer.finish(json.loads(json.dumps(attributes)))
    steps = sequences["steps"]
    return StageResult(
        counts={
            "fires": len(fires),
            "samples": int((steps - 1).sum()),
            "tokens": int((sequences["rows"] * sequences["columns"]).sum()),
            "patch": patch,
            "steps": f"{steps.min()} to {steps.max()}",
            "crops": f"{sequences['height'].min()} x {sequences['width'].min()} to "
            f"{sequences['height'].max()} x {sequences['width'].max()}",
            "distinct_weathers": len(np.unique(sequences["weather"])),
        }
    )


def _write_ragged(job: Job, writer: CacheWriter, paths: Sequence[Path]) -> dict[str, NDArray[Any]]:
    """Write every ragged array, packed pixels one at a time to bound the memory; return what `seq` is made of."""
    small = [name for name in RAGGED if not name.startswith("px/")]
    keys = [RAGGED[name] for name in small]
    columns = list(zip(*_read(paths, (*keys, "box")), strict=True))
    of_key = dict(zip((*keys, "box"), columns, strict=True))
    for name in small:
        parts = of_key[RAGGED[name]]
        writer.write(name, np.concatenate([part.reshape(-1) for part in parts] if name in FLAT else parts))
    for done, name in enumerate([name for name in RAGGED if name not in small], 1):
        writer.write(name, np.concatenate([part.reshape(-1) for (part,) in _read(paths, (RAGGED[name],))]))
        job.session.reporter.progress(job.stage, done, len(RAGGED) - len(small))
    return {
        "box": np.stack(of_key["box"]),
        "steps": np.array([len(wind) for wind in of_key["wind"]], np.int32),
        "weather": _weather_numbers(of_key["wind"], of_key["wind_valid"]),
    }


def _read(paths: Sequence[Path], keys: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
    """Yield these arrays of every record."""
    from safetensors import safe_open

    for path in paths:
        with safe_open(path, framework="numpy") as file:
            yield [file.get_tensor(key) for key in keys]


def _weather_numbers(winds: Sequence[NDArray[Any]], valids: Sequence[NDArray[Any]]) -> NDArray[np.int32]:
    """Number fires by their wind rows: equal rows, equal number."""
    known: dict[bytes, int] = {}
    numbers = []
    for wind, valid in zip(winds, valids, strict=True):
        rows = np.concatenate([wind, valid[:, None]], axis=1)[: _measured(valid)]
        numbers.append(known.setdefault(rows.astype(np.float32).tobytes(), len(known)))
    return np.array(numbers, np.int32)


def _measured(valid: NDArray[np.bool_]) -> int:
    """Return the number of rows up to the last measured one."""
    return int(np.flatnonzero(valid)[-1]) + 1 if valid.any() else 0


def _sequences(fires: Sequence[dict[str, Any]], sizes: dict[str, NDArray[Any]], patch: int) -> dict[str, NDArray[Any]]:
    y0, y1, x0, x1 = sizes["box"].T.astype(np.int32)
    height, width = y1 - y0, x1 - x0
    rows, columns = -(-height // patch), -(-width // patch)
    return {
        "number": np.array([fire["number"] for fire in fires], np.int32),
        "digits": np.array([len(fire["name"].removeprefix("sequence_")) for fire in fires], np.uint8),
        "steps": sizes["steps"],
        "y0": y0, "x0": x0, "height": height, "width": width,
        "rows": rows, "columns": columns,
        "pad_bottom": rows * patch - height, "pad_right": columns * patch - width,
        "weather": sizes["weather"],
    }  # fmt: skip


def _lengths(sequences: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.int64]]:
    """Return how much of each ragged axis belongs to every fire."""
    wide = {name: values.astype(np.int64) for name, values in sequences.items()}
    tokens = wide["rows"] * wide["columns"]
    plane = -(-(wide["height"] * wide["width"]) // 8)
    steps = wide["steps"]
    return {
        "token": tokens, "frame": steps, "frametoken": steps * tokens, "pixel": plane, "framepixel": steps * plane,
    }  # fmt: skip

"""One fire: its files checked, decoded once, packed and pooled. The work of one unit of `fire_records`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.fire_data import Decoding, Tokens
from storage.assets import Unit
from tasks.fire.archive import FireFiles
from tasks.fire.images import read_mask
from tasks.fire.landscape import Landscape
from tasks.fire.pooling import pool_arrival, pool_classes, pool_footprint, pool_mask, pool_means
from tasks.fire.wind import Wind, read_wind
from tasks.units import UnitOutput

FOLDER = "fires"
LONGEST = 255


@dataclass(frozen=True, slots=True)
class Work:
    """What every fire needs; written down once, so that it does not travel with each unit."""

    root: Path
    landscape: Landscape
    values: NDArray[np.float64]
    """The landscape's values, in numbers that add up without loss."""
    decoding: Decoding
    patch: int


@lru_cache(maxsize=1)
def load_work(description: Path) -> Work:
    """Read the description that the stage wrote; a process does so once."""
    work = json.loads(description.read_bytes())
    decoding, tokens = Decoding.model_validate(work["decoding"]), Tokens.model_validate(work["tokens"])
    landscape = Landscape.load(Path(work["landscape"]))
    return Work(Path(work["root"]), landscape, landscape.values.astype(np.float64), decoding, tokens.patch)


def write_record(folder: Path, unit: Unit) -> UnitOutput:
    """Write one fire as `fires/<name>.safetensors`; a broken one has no file and one sentence about what is wrong."""
    from safetensors.numpy import save_file

    description, fire, digests = unit.payload
    try:
        arrays, wind = read_fire(load_work(description), fire, digests)
    except ValueError as error:
        return UnitOutput([], {"problem": f"{fire.name} {error}"})
    name = f"{FOLDER}/{fire.name}.safetensors"
    (folder / FOLDER).mkdir(exist_ok=True)
    save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / name)  # it ignores strides
    frames, targets = (int(arrays[key][-1].sum()) for key in ("burnt", "burnt_target"))
    return UnitOutput(
        [name],
        {
            "steps": len(arrays["wind"]),
            "burnt": frames,
            "burnt_target": targets,
            "unmeasured": [f"{fire.weather} {row}" for row in wind.unmeasured],
            "windless": not wind.valid[:-1].any(),
            "delimiter": wind.delimiter,
            "highest_direction": wind.highest,
        },
    )


def read_fire(work: Work, fire: FireFiles, digests: Mapping[str, str]) -> tuple[dict[str, NDArray[Any]], Wind]:
    """Return the record of a fire and its wind; `digests` tells equal images, so that each is decoded once.

    T frames of H x W pixels and N tokens give: `frames` and `targets` (T, bytes) and `domain` (bytes), packed bits row
    by row; `fire` (T, N) burnt share of a token's domain pixels; `domain_share` and `footprint` (N); `mean` and `share`
    (N, C) of continuous bands; `histogram` (N, all classes) and `class_share` (N, Q); `wind` (T, 3), `wind_valid` (T);
    `burnt` and `burnt_target` (T, 1), pixels; `box` (4). `ValueError` says what is wrong, without the fire's name.
    """
    land, patch = work.landscape, work.patch
    y0, y1, x0, x1 = fire.box
    rows, columns = land.shape
    if not (0 <= y0 < y1 <= rows and 0 <= x0 < x1 <= columns):
        raise ValueError(
            f"has the box {list(fire.box)}, which is not inside the landscape of {rows} x {columns} pixels"
        )
    crop = np.s_[:, y0:y1, x0:x1]
    domain = land.classes[land.fuel, y0:y1, x0:x1] > 0
    frames, targets = _masks(work, fire, digests, domain.shape)
    arrival = _check(fire, frames, targets, domain)
    try:
        wind = read_wind(work.root / fire.weather, len(frames), work.decoding)
    except ValueError as error:
        raise ValueError(f"{fire.weather} {error}") from None
    domain_pixels = pool_mask(domain, patch)
    mean, share = pool_means(work.values[crop], land.values_valid[crop], patch)
    pooled = [
        pool_classes(classes, len(codes), patch)
        for classes, (_, codes) in zip(land.classes[crop], land.categorical, strict=True)
    ]
    steps = len(frames)
    arrays = {
        "box": np.array(fire.box, np.int32),
        "frames": np.packbits(frames.reshape(steps, -1), axis=1),
        "targets": np.packbits(targets.reshape(steps, -1), axis=1),
        "domain": np.packbits(domain),
        "burnt": frames.sum(axis=(1, 2), dtype=np.int64)[:, None],
        "burnt_target": targets.sum(axis=(1, 2), dtype=np.int64)[:, None],
        "fire": pool_arrival(arrival, steps, domain_pixels, patch),
        "domain_share": (domain_pixels / patch**2).astype(np.float32),
        "footprint": pool_footprint(y1 - y0, x1 - x0, patch),
        "mean": mean,
        "share": share,
        "histogram": np.concatenate([histogram for histogram, _ in pooled], axis=1),
        "class_share": np.stack([class_share for _, class_share in pooled], axis=1),
        "wind": wind.vectors,
        "wind_valid": wind.valid,
    }
    return arrays, wind


def _masks(
    work: Work, fire: FireFiles, digests: Mapping[str, str], shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Decode frames and targets, (T, H, W) each; equal files once."""
    import rasterio

    decoded: dict[str, NDArray[np.bool_]] = {}
    with rasterio.Env():  # entered once, not for each image
        for name in dict.fromkeys(fire.frames + fire.targets):
            if digests[name] not in decoded:
                try:
                    mask = read_mask(work.root / name, work.decoding.fire_green)
                except ValueError as error:
                    raise ValueError(f"{name} {error}") from None
                if mask.shape != shape:
                    raise ValueError(
                        f"{name} has {mask.shape[0]} x {mask.shape[1]} pixels, but the box in indices.json "
                        f"{shape[0]} x {shape[1]}"
                    )
                decoded[digests[name]] = mask
    return (
        np.stack([decoded[digests[name]] for name in fire.frames]),
        np.stack([decoded[digests[name]] for name in fire.targets]),
    )


def _check(
    fire: FireFiles, frames: NDArray[np.bool_], targets: NDArray[np.bool_], domain: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Refuse fires that contradict themselves; return the first frame in which each pixel burns, T where none."""
    if len(frames) > LONGEST:
        raise ValueError(f"has {len(frames)} frames, where at most {LONGEST} are read")
    if not frames[-1].any():
        raise ValueError("burns in no frame")
    for t, (before, after) in enumerate(pairwise(frames), 1):
        if (lost := np.count_nonzero(before & ~after)) > 0:
            raise ValueError(f"{fire.frames[t]} shows {lost} pixels unburnt that burn one frame earlier")
        if (lost := np.count_nonzero(before & ~targets[t])) > 0:
            raise ValueError(f"{fire.targets[t]} does not cover {lost} pixels that burn in frame {t - 1}")
    for names, masks in ((fire.frames, frames), (fire.targets, targets)):
        if (masks.any(axis=0) & ~domain).any():
            t = int((masks & ~domain).any(axis=(1, 2)).argmax())
            outside = np.count_nonzero(masks[t] & ~domain)
            raise ValueError(f"{names[t]} burns on {outside} pixels where the fuel band has no value")
    return len(frames) - frames.sum(axis=0, dtype=np.uint8)

"""Pools a raw fire archive with PIL and numpy in one thread; arguments: archive, folder, patch, isochrones.

It does what the wildfire document describes and no more: bands are min-max normalised with nodata as -1, crops padded
to whole patches, everything averaged over patches, and each fire saved as a few .npy files. There are no masks, no
checks, no hashes and no class histograms. With `isochrones` it decodes the targets too, and drops them.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image

from benchmarks.stopwatch import Stopwatch

GREEN = 231


def main(task: dict[str, Any]) -> None:
    """Pool all fires and answer with what it cost."""
    archive, patch = Path(task["archive"]), task["patch"]
    with Stopwatch() as watch:
        bands = read_bands(archive)
        boxes = json.loads((archive / "landscape/indices.json").read_bytes())
        weathers = (archive / "landscape/WeatherHistory.csv").read_text().splitlines()
        for source in sorted((archive / "fire_frames").iterdir()):
            number = int(source.name.removeprefix("sequence_"))
            y0, y1, x0, x1 = boxes[str(number)]
            folder = Path(task["folder"]) / source.name
            folder.mkdir(parents=True)
            np.save(folder / "static_tokens.npy", pool(bands[:, y0:y1, x0:x1], patch).T)
            frames = np.stack([read_mask(path) for path in sorted(source.iterdir())])
            np.save(folder / "fire_tokens.npy", pool(frames, patch))
            name = weathers[number - 1].rpartition("/")[2]
            np.save(folder / "wind.npy", read_wind(archive / "landscape/Weathers" / name))
            if task["isochrones"]:
                for path in sorted((archive / "isochrones" / source.name).iterdir()):
                    read_mask(path)
    print(json.dumps(watch.as_json()), flush=True)


def read_bands(archive: Path) -> NDArray[np.float32]:
    """Return the bands of the landscape, normalised to 0..1."""
    with rasterio.open(archive / "landscape/Input_Geotiff.tif") as raster:
        bands = raster.read(out_dtype=np.float32)
    bands[bands == -9999] = -1
    low, high = (bound(axis=(1, 2), keepdims=True) for bound in (bands.min, bands.max))
    return (bands - low) / (high - low)


def read_mask(path: Path) -> NDArray[np.float32]:
    """Return 1 where a picture burns."""
    with Image.open(path) as image:
        return (np.asarray(image)[..., 1] == GREEN).astype(np.float32)


def pool(images: NDArray[np.float32], patch: int) -> NDArray[np.float32]:
    """Average (K, H, W) over patches, row by row, to (K, N)."""
    height, width = images.shape[1:]
    images = np.pad(images, ((0, 0), (0, -height % patch), (0, -width % patch)))
    rows, columns = images.shape[1] // patch, images.shape[2] // patch
    return images.reshape(-1, rows, patch, columns, patch).mean(axis=(2, 4)).reshape(len(images), -1)


def read_wind(path: Path) -> NDArray[np.float32]:
    """Return speed and direction of every row."""
    with path.open(newline="") as file:
        return np.array([[float(row["WS"]), float(row["WD"])] for row in csv.DictReader(file)], np.float32)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

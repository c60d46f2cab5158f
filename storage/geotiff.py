"""GeoTIFF files that are whole or not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.files import write_atomic


@contextlib.contextmanager
def new_geotiff(path: Path, **profile: Any) -> Iterator[Any]:
    """Yield a dataset of rasterio; what was written there becomes the file on a clean exit.

    It is made in memory: on a full disk GDAL leaves half a file, and tells nobody.
    """
    from rasterio.io import MemoryFile

    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **profile) as dataset:
            yield dataset
        write_atomic(path, memory.read())

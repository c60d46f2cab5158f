"""The landscape in which sample fires burn, and its raster file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from configs.fire_sample import SampleFires
from storage.geotiff import new_geotiff
from tasks.samples.fire_fuels import burnable, make_cover
from tasks.samples.fire_terrain import Floats, Mask, make_terrain, noise

NODATA = -9999.0
BANDS = ("fuels", "cbd", "cbh", "elevation")
CRS = "EPSG:25831"
"""ETRS89 / UTM zone 31N: metres."""
ORIGIN = (420_000.0, 4_620_000.0)
"""Easting and northing of the north-western corner."""


@dataclass(frozen=True, slots=True)
class Landscape:
    """What fires know, and what the raster shows of it; arrays (rows, columns), row 0 in the north."""

    fuel: NDArray[np.int16]
    """Fuel code; 0 where the map has none, which cannot burn."""
    crown_density: Floats
    """Canopy bulk density, kg per cubic metre."""
    crown_base: Floats
    """Canopy base height, metres."""
    elevation: Floats
    """Metres, without holes."""
    patchiness: Floats
    """Factor on the rate of spread that no band shows: fuel differs within its class."""
    unmapped: Mask
    """Where fuel and canopy are nodata."""
    hole: Mask
    """Where elevation is nodata."""

    @property
    def burnable(self) -> Mask:
        """Where a fire can burn."""
        return burnable(self.fuel)

    def bands(self) -> NDArray[np.float32]:
        """Return (band, rows, columns) as the raster holds it."""
        stack = np.stack([self.fuel, self.crown_density, self.crown_base, self.elevation]).astype(np.float32)
        stack[:3, self.unmapped] = NODATA
        stack[3, self.hole] = NODATA
        return stack

    def to_bytes(self) -> bytes:
        """Return all arrays as an uncompressed archive that `from_file` reads."""
        buffer = BytesIO()
        np.savez(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})
        return buffer.getvalue()

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read what `to_bytes` made."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(cls)})


def make_landscape(config: SampleFires) -> Landscape:
    """Return the landscape of a config; it depends on its seed, size, cell and shares alone."""
    rng = np.random.default_rng((config.seed, 0))
    shape = (config.rows, config.columns)
    terrain = make_terrain(rng, shape, config.cell_metres, config.outside_share)
    cover = make_cover(rng, terrain)
    patchiness = np.exp(0.2 * noise(rng, shape, 0.4))
    land = ~terrain.outside
    steepness = np.hypot(*np.gradient(terrain.elevation))
    shadow = noise(rng, shape, 0.7) + 0.3 * steepness / steepness.mean()  # voids gather on steep ground
    hole = terrain.outside | _highest(shadow, land, config.hole_share)
    unmapped = terrain.outside | _highest(noise(rng, shape, 0.8), land, config.hole_share / 4)
    fuel = np.where(unmapped, 0, cover.fuel).astype(np.int16)
    return Landscape(fuel, cover.crown_density, cover.crown_base, terrain.elevation, patchiness, unmapped, hole)


def _highest(field: Floats, within: Mask, share: float) -> Mask:
    """Return the cells that hold the highest share of a field."""
    if share == 0:
        return np.zeros_like(within)
    return np.asarray(within & (field > np.quantile(field[within], 1 - share)))


def write_raster(landscape: Landscape, cell_metres: float, path: Path) -> None:
    """Write the four bands as a GeoTIFF."""
    import rasterio

    bands = landscape.bands()
    profile = {
        "dtype": "float32",
        "count": len(BANDS),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "nodata": NODATA,
        "crs": CRS,
        "transform": rasterio.Affine(cell_metres, 0, ORIGIN[0], 0, -cell_metres, ORIGIN[1]),
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
    }
    with new_geotiff(path, **profile) as file:
        file.write(bands)
        file.descriptions = BANDS

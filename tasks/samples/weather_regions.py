"""Named boxes that tile the globe, so that a caption's region can be mapped back to a place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.samples.weather_earth import Grid

_BANDS: tuple[tuple[int, int, tuple[tuple[int, str], ...]], ...] = (
    (
        90,
        72,
        (
            (-180, "Beaufort Sea"),
            (-120, "Canadian Arctic"),
            (-70, "northern Greenland"),
            (-10, "Svalbard and Barents Sea"),
            (60, "Kara and Laptev Seas"),
            (130, "East Siberian Sea"),
        ),
    ),
    (
        72,
        60,
        (
            (-180, "Alaska"),
            (-140, "northwestern Canada"),
            (-95, "Hudson Bay and Baffin Island"),
            (-60, "southern Greenland"),
            (-30, "Iceland"),
            (-10, "Norwegian Sea"),
            (5, "Scandinavia"),
            (30, "northwestern Russia"),
            (60, "western Siberia"),
            (100, "central Siberia"),
            (145, "Russian Far East"),
        ),
    ),
    (
        60,
        53,
        (
            (-180, "Bering Sea"),
            (-150, "Gulf of Alaska"),
            (-125, "Canadian Prairies north"),
            (-95, "southern Hudson Bay"),
            (-70, "Labrador"),
            (-50, "Irminger Sea"),
            (-30, "Atlantic south of Iceland"),
            (-11, "Scotland and Ireland"),
            (-1, "North Sea"),
            (8, "Denmark and southern Sweden"),
            (17, "Baltic Sea and Baltic states"),
            (30, "western Russia"),
            (60, "southwestern Siberia"),
            (90, "Lake Baikal region"),
            (120, "Amur region"),
            (140, "Sea of Okhotsk"),
            (160, "Kamchatka"),
        ),
    ),
    (
        53,
        45,
        (
            (-180, "North Pacific"),
            (-150, "northeastern Pacific"),
            (-127, "Pacific Northwest"),
            (-110, "northern Great Plains"),
            (-92, "Great Lakes"),
            (-75, "Gulf of Saint Lawrence"),
            (-55, "Atlantic east of Newfoundland"),
            (-30, "Atlantic west of Biscay"),
            (-10, "Brittany and English Channel"),
            (0, "France and Low Countries"),
            (8, "Alps and Germany"),
            (17, "Carpathian Basin"),
            (30, "Ukraine"),
            (45, "lower Volga"),
            (60, "Kazakhstan"),
            (90, "Mongolia"),
            (120, "northeastern China"),
            (135, "Sakhalin"),
            (150, "northwestern Pacific"),
        ),
    ),
    (
        45,
        37,
        (
            (-180, "central North Pacific"),
            (-140, "Pacific off California"),
            (-123, "Great Basin"),
            (-107, "central Great Plains"),
            (-90, "Ohio Valley"),
            (-77, "northeastern United States"),
            (-60, "Atlantic south of Newfoundland"),
            (-35, "Azores"),
            (-11, "Iberia"),
            (2, "western Mediterranean"),
            (10, "Italy and Adriatic"),
            (19, "Balkans and Aegean"),
            (29, "Anatolia and Black Sea"),
            (45, "Caspian Sea"),
            (60, "Central Asia"),
            (85, "Gobi Desert"),
            (110, "northern China"),
            (125, "Korea and northern Japan"),
            (150, "Pacific east of Japan"),
        ),
    ),
    (
        37,
        30,
        (
            (-180, "subtropical North Pacific"),
            (-130, "southern California"),
            (-110, "Texas and New Mexico"),
            (-92, "southeastern United States"),
            (-77, "Bermuda"),
            (-50, "subtropical North Atlantic"),
            (-25, "Madeira"),
            (-10, "Morocco"),
            (1, "Algeria and Tunisia"),
            (12, "Libya and Gulf of Sidra"),
            (22, "eastern Mediterranean"),
            (36, "Mesopotamia"),
            (50, "Iran"),
            (64, "Afghanistan and Kashmir"),
            (82, "Tibet"),
            (102, "central China"),
            (122, "southern Japan"),
            (150, "Pacific southeast of Japan"),
        ),
    ),
    (
        30,
        12,
        (
            (-180, "Hawaii"),
            (-140, "eastern North Pacific"),
            (-118, "Mexico"),
            (-98, "Gulf of Mexico"),
            (-84, "Caribbean"),
            (-60, "tropical North Atlantic"),
            (-25, "western Sahara"),
            (0, "central Sahara"),
            (20, "Egypt and Sudan"),
            (36, "Arabia"),
            (60, "Arabian Sea"),
            (74, "India"),
            (90, "Bay of Bengal and Indochina"),
            (108, "South China Sea"),
            (122, "Philippine Sea"),
            (145, "Micronesia"),
        ),
    ),
    (
        12,
        -12,
        (
            (-180, "central equatorial Pacific"),
            (-130, "eastern equatorial Pacific"),
            (-82, "Amazonia"),
            (-50, "equatorial Atlantic"),
            (-18, "Gulf of Guinea"),
            (10, "Congo Basin"),
            (32, "East Africa"),
            (52, "equatorial Indian Ocean"),
            (95, "Indonesia"),
            (130, "New Guinea"),
            (155, "western equatorial Pacific"),
        ),
    ),
    (
        -12,
        -35,
        (
            (-180, "Polynesia"),
            (-120, "southeastern Pacific"),
            (-76, "central Andes"),
            (-60, "southern Brazil"),
            (-38, "South Atlantic"),
            (8, "southern Africa"),
            (34, "Mozambique Channel and Madagascar"),
            (60, "southern Indian Ocean"),
            (110, "western Australia"),
            (135, "eastern Australia"),
            (156, "Coral Sea"),
        ),
    ),
    (
        -35,
        -60,
        (
            (-180, "Southern Ocean east of New Zealand"),
            (-120, "Southern Ocean west of Chile"),
            (-78, "Patagonia"),
            (-55, "southern South Atlantic"),
            (0, "Southern Ocean south of Africa"),
            (50, "Southern Ocean around Kerguelen"),
            (110, "Southern Ocean south of Australia"),
            (160, "New Zealand"),
        ),
    ),
    (
        -60,
        -90,
        (
            (-180, "Ross Sea"),
            (-120, "West Antarctica"),
            (-70, "Weddell Sea"),
            (0, "Queen Maud Land"),
            (50, "East Antarctica"),
            (120, "Wilkes Land"),
        ),
    ),
)


def _boxes() -> dict[str, tuple[int, int, int, int]]:
    boxes = {}
    for north, south, columns in _BANDS:
        edges = [west for west, _ in columns] + [180]
        for (west, name), east in zip(columns, edges[1:], strict=True):
            boxes[name] = (north, west, south, east)
    return boxes


REGIONS: dict[str, tuple[int, int, int, int]] = _boxes()
"""Name -> (north, west, south, east) in degrees, longitudes from -180 to 180. A point on a border belongs to the
box south and east of it; the boxes cover the globe once."""


@dataclass(frozen=True, slots=True)
class Region:
    """A named box and the rows and columns of a grid that lie in it."""

    name: str
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]


def regions_of(grid: Grid) -> list[Region]:
    """The regions of which at least a quarter lies on the grid; all that it touches when there is none such."""
    longitude = (grid.longitude + 180) % 360 - 180
    touched, large = [], []
    for name, (north, west, south, east) in REGIONS.items():
        inside = (grid.latitude <= north) & ((grid.latitude > south) | (south == -90))
        region = Region(name, np.flatnonzero(inside), np.flatnonzero((longitude >= west) & (longitude < east)))
        cells = len(region.rows) * len(region.columns)
        if cells:
            touched.append(region)
            if cells * grid.step**2 >= 0.25 * (north - south) * (east - west):
                large.append(region)
    return large or touched

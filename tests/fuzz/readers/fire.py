"""Archives of fires: the raster of the landscape, frames, winds, and the tables that say which belongs to what."""

from __future__ import annotations

import io
import json
import struct
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from affine import Affine
from PIL import Image
from rasterio.io import MemoryFile

from configs.fire_data import Decoding
from tasks.fire.archive import HISTORY, INDICES, LANDSCAPE, WEATHERS, Archive, list_fires
from tasks.fire.images import read_mask
from tasks.fire.landscape import read_landscape
from tasks.fire.wind import read_wind
from tests.fuzz.case import Files, Reader
from tests.fuzz.mutate import NUMBERS, WORDS, json_bytes, mutate_bytes, mutate_json, mutate_text, number, packed, some
from tests.fuzz.readers.pictures import chunks_of, mutate_png

DECODING = Decoding()
SHAPE = 6, 7


# -- rasters ------------------------------------------------------------------------------------------------------

CRS = (None, "EPSG:25831", "EPSG:4326", "EPSG:3857", "EPSG:32631", "EPSG:2154", "EPSG:3031", "EPSG:27700", "EPSG:2263",
       "EPSG:4978", "IAU_2015:30100", 'LOCAL_CS["x",UNIT["metre",1]]', "+proj=ortho +lat_0=80",
       "+proj=longlat +R=1737400", "+proj=utm +zone=31 +units=us-ft", "+proj=omerc +lonc=1 +alpha=40")  # fmt: skip
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "complex64",
          "complex_int16")  # fmt: skip


def _geotiff(random: Random) -> bytes:
    """Return a raster of which a few things are odd."""
    every = ["fuels", "elevation", "cbd", "slope", "ELEVATION"]
    bands = every[: random.choice((2, 3))] if random.random() < 0.9 else random.sample(every, random.choice((1, 2, 3)))
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "count": len(bands), "dtype": "float32",
        "nodata": -9999.0, "crs": "EPSG:25831", "transform": Affine(20, 0, 300_000, 0, -20, 4_600_000),
    }  # fmt: skip
    for _ in some(random, 3):
        _change_profile(random, profile)
    profile = {name: value for name, value in profile.items() if value is not None}
    with MemoryFile() as memory:
        with memory.open(**profile) as file:
            shape = file.height, file.width
            for index, name in enumerate(bands, 1):
                file.write(_band(random, shape, file.dtypes[0]), index)
                file.set_band_description(index, name if random.random() < 0.95 else random.choice(WORDS))
            _tags(random, file)
        return bytes(memory.read())


def _change_profile(random: Random, profile: dict[str, Any]) -> None:
    match random.randrange(7):
        case 0:
            profile["dtype"] = random.choice(DTYPES)
        case 1:
            profile["nodata"] = random.choice((None, 0, 255, -1, float("nan"), float("inf"), 3.4e38, number(random)))
        case 2:
            profile["crs"] = random.choice(CRS)
        case 3:
            numbers = list(profile["transform"])[:6]
            numbers[random.randrange(6)] = random.choice((0, 1e-320, 1e300, -20, float("nan"), float("inf"), 1, 89.9))
            profile["transform"] = random.choice((Affine(*numbers), Affine(0.1, 0, 1, 0, -0.1, 45), Affine.identity()))
        case 4:
            profile["compress"] = random.choice(("deflate", "lzw", "packbits", "zstd", "lerc", "ccittfax4", "jpeg"))
        case 5:
            profile |= random.choice(({"tiled": True, "blockxsize": 16, "blockysize": 16}, {"interleave": "band"},
                                      {"bigtiff": "YES"}, {"predictor": 3}, {"nbits": 4}, {"photometric": "palette"},
                                      {"sparse_ok": True}, {"endianness": "BIG"}))  # fmt: skip
        case _:
            profile["height"] = random.choice((1, 2, 100, 3000))


def _band(random: Random, shape: tuple[int, int], dtype: str) -> Any:
    values = np.random.default_rng(random.getrandbits(32)).integers(0, 200, shape).astype(np.float64)
    for _ in range(random.choice((0, 0, 1, 3))):
        at = random.randrange(shape[0]), random.randrange(shape[1])
        values[at] = random.choice((-9999, 32767, -32768, 1e30, 3.4e38, float("nan"), float("inf"), 0.5, -1e300, 65535))
    with np.errstate(invalid="ignore", over="ignore"):
        return values.astype("complex64" if dtype.startswith("complex") else dtype)


def _tags(random: Random, file: Any) -> None:
    count = file.count
    if random.random() < 0.2:
        file.scales = [random.choice((0, 1, 0.1, -1, float("nan"), float("inf"), 1e300)) for _ in range(count)]
    if random.random() < 0.2:
        file.offsets = [random.choice((0, 100, float("nan"), float("-inf"), 1e300)) for _ in range(count)]
    if random.random() < 0.2:
        file.units = [random.choice(("m", "ft", "", *WORDS)) for _ in range(count)]
    if random.random() < 0.1:
        file.write_mask(np.random.default_rng(1).integers(0, 2, (file.height, file.width)).astype(bool))
    if random.random() < 0.1:
        file.update_tags(1, AREA_OR_POINT="Point", STATISTICS_MEAN=random.choice(NUMBERS))


@cache
def _plain() -> bytes:
    return _geotiff(Random(0))


def _change_directory(random: Random, data: bytes) -> bytes:
    """Change fields of the first directory of a TIFF: a tag, its type, its count, or its value."""
    if data[:4] != b"II*\0":
        return mutate_bytes(random, data)
    found = bytearray(data)
    start = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[start : start + 2], "little")
    for _ in some(random):
        entry = start + 2 + 12 * random.randrange(max(1, entries))
        offset, form = random.choice(((0, "<H"), (2, "<H"), (4, "<I"), (8, "<I"), (8, "<H")))
        if random.random() < 0.1:
            tags = (256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 339, 33550, 33922, 34735, 42112, 42113)
            struct.pack_into("<H", found, entry, random.choice(tags))
        else:
            written = packed(random, form)
            found[entry + offset : entry + offset + len(written)] = written
    return bytes(found)


def _make_geotiff(random: Random) -> Files:
    chance = random.random()
    if chance < 0.3:
        return {"a.tif": _geotiff(random)}
    data = _geotiff(random) if chance < 0.4 else _plain()
    return {"a.tif": (_change_directory if chance < 0.8 else mutate_bytes)(random, data)}


def _read_geotiff(given: Path, made: Path) -> object:
    land = read_landscape(given / "a.tif", DECODING)
    assert np.isfinite(land.values).all(), "what is valid is finite, and the rest is 0"
    return land


# -- frames -------------------------------------------------------------------------------------------------------


@cache
def _frames() -> tuple[list[tuple[bytes, bytes]], ...]:
    mask = np.random.default_rng(0).random((9, 13)) < 0.5
    colours = np.where(mask[..., None], (253, 231, 36, 255), (68, 1, 84, 255)).astype(np.uint8)
    picture = Image.fromarray(colours, "RGBA")
    found = []
    for mode in ("RGBA", "RGB", "P", "L", "1"):
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, "PNG")
        found.append(chunks_of(buffer.getvalue()))
    return tuple(found)


def _make_frame(random: Random) -> Files:
    return {"fire_000.png": mutate_png(random, random.choice(_frames()))}


def _read_frame(given: Path, made: Path) -> object:
    return read_mask(given / "fire_000.png", DECODING.fire_green)


# -- tables -------------------------------------------------------------------------------------------------------

WIND = "Scenario,datetime,WS,WD,FireScenario\n" + "\n".join(
    f"x,2024-01-01 0{t}:00,{5 + t},{40 * t},1.0" for t in range(4)
)


def _make_wind(random: Random) -> Files:
    return {"Weather1.csv": mutate_text(random, WIND + random.choice(("", "\n")))}


def _read_wind(given: Path, made: Path) -> object:
    wind = read_wind(given / "Weather1.csv", 5, DECODING)
    assert np.isfinite(wind.vectors).all()
    return wind


INDEX = {str(n): [n, n + 30, 2 * n, 2 * n + 40] for n in range(1, 4)}
LINES = "\n".join(f"data/risk_study/Weathers/Weather{n}.csv" for n in range(1, 4))


def _make_archive(random: Random) -> Files:
    history = mutate_text(random, LINES, "/") if random.random() < 0.5 else LINES.encode()
    indices = json_bytes(random, mutate_json(random, INDEX)) if random.random() < 0.6 else json.dumps(INDEX).encode()
    names = [LANDSCAPE, *(f"{WEATHERS}/Weather{n}.csv" for n in range(1, 4))]
    names += [f"{kind}/sequence_00{n}/fire_{t:03d}.png" for kind in ("fire_frames", "isochrones") for n in range(1, 4)
              for t in range(2)]  # fmt: skip
    files = {INDICES: indices, HISTORY: history} | dict.fromkeys(names, b"")
    for _ in some(random, 2):
        name = random.choice(names)
        files.pop(name, None)
        if random.random() < 0.5:
            files[
                name.replace(random.choice(("0", "fire", "sequence", ".png")), random.choice(("1", "x", "9" * 30)))
            ] = b""
    return {name: data for name, data in files.items() if all(len(part) < 200 for part in name.split("/"))}


def _read_archive(given: Path, made: Path) -> object:
    files = [path.relative_to(given).as_posix() for path in given.rglob("*") if path.is_file()]
    return list_fires(Archive(given, dict.fromkeys(files, "")), DECODING)


READERS = (
    Reader("geotiff", ("tasks.fire.landscape",), _make_geotiff, _read_geotiff, least=100),
    Reader("fire_frame", ("tasks.fire.images",), _make_frame, _read_frame),
    Reader("fire_wind", ("tasks.fire.wind",), _make_wind, _read_wind),
    Reader("fire_archive", ("tasks.fire.archive",), _make_archive, _read_archive, least=100),
)

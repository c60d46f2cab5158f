"""Rasters, boxes and frames as people have them: the right value, or one sentence."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import from_origin

from configs.fire_data import BandRecipe, Decoding
from flows.wildfire import visible_archive
from tasks.fire.archive import Archive, archive_files, list_fires
from tasks.fire.images import read_mask
from tasks.fire.landscape import Landscape, read_landscape
from tests.fire.archives import BURNT, CELL, OTHER, Fire, records_of, write_archive

ROWS, COLUMNS = 12, 16
FUELS = np.full((ROWS, COLUMNS), 101, np.int16)
HEIGHTS = np.add.outer(np.arange(ROWS) * -3, 500 + 2 * np.arange(COLUMNS))
UTM = {"crs": "EPSG:25831", "transform": from_origin(300_000, 4_600_000, CELL, CELL)}


def shape(words: str, outcome: str, format: str = "GeoTIFF"):
    return pytest.mark.input_shape(format=format, shape=words, outcome=outcome)


def write(
    path: Path, bands: dict[str, np.ndarray], place=UTM, scales=None, offsets=None, units=None, **profile
) -> Path:
    first = next(iter(bands.values()))
    settings = {"driver": "GTiff", "count": len(bands), "height": first.shape[0], "width": first.shape[1]}
    dtype = np.result_type(*(band.dtype for band in bands.values()))
    with rasterio.open(path, "w", **settings, dtype=dtype, **place, **profile) as file:
        for index, (name, band) in enumerate(bands.items(), 1):
            file.write(band.astype(dtype), index)
            file.set_band_description(index, name)
        if scales:
            file.scales, file.offsets = scales, offsets
        if units:
            file.units = units
    return path


def bands_of(land: Landscape) -> dict[str, np.ndarray]:
    return dict(zip(land.continuous, land.values, strict=True))


@shape("scale and offset of their own per band", "read")
def test_every_band_is_scaled_as_the_file_says(tmp_path):
    stored = (HEIGHTS * 10 - 1000).astype(np.int16)
    stored[3, 4] = -9999
    bands = {"fuels": FUELS, "elevation": stored, "cbd": (HEIGHTS % 7).astype(np.int16)}
    path = write(tmp_path / "a.tif", bands, scales=(1, 0.1, 0.01), offsets=(0, 100, 0.5), nodata=-9999)
    land = read_landscape(path, Decoding())
    found, valid = bands_of(land), dict(zip(land.continuous, land.values_valid, strict=True))
    with rasterio.open(path) as file:
        expected = {name: file.read(i, masked=True) * file.scales[i - 1] + file.offsets[i - 1]
                    for i, name in enumerate(file.descriptions, 1)}  # fmt: skip
    for name in ("elevation", "cbd"):
        np.testing.assert_allclose(found[name][valid[name]], expected[name].compressed(), rtol=1e-6)
        np.testing.assert_array_equal(~valid[name], np.ma.getmaskarray(expected[name]))
    np.testing.assert_allclose(found["elevation"][0, 0], 500, rtol=1e-6)
    np.testing.assert_allclose(found["slope_east"][8], 2 / CELL, rtol=1e-3)
    assert land.categorical == (("fuels", (101,)),)


@shape("a scale of 0", "refused")
def test_a_scale_that_leaves_nothing_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", {"fuels": FUELS}, scales=(0,), offsets=(1,))
    with pytest.raises(ValueError, match="band fuels has the scale 0"):
        read_landscape(path, Decoding())


@pytest.mark.parametrize("kind", ["complex64", "complex_int16"])
@shape("complex numbers", "refused")
def test_complex_bands_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "count": 1, "height": ROWS, "width": COLUMNS, **UTM}
    with rasterio.open(path, "w", dtype=kind, **profile) as file:
        file.write(FUELS.astype(np.complex64), 1)
        file.set_band_description(1, "fuels")
    with pytest.raises(ValueError, match=rf"a\.tif: band fuels holds {kind} numbers"):
        read_landscape(path, Decoding())


FILLS = {
    "32767 undeclared": (32767, "32767 on 1 pixels, which stands for no data"),
    "-32768 undeclared": (-32768, "-32768 on 1 pixels, which stands for no data"),
    "-9999 undeclared": (-9999, "-9999 on 1 pixels, which stands for no data"),
    "-3.4e38 undeclared": (-3.4028234663852886e38, r"-3.40282e\+38 on 1 pixels, which stands for no data"),
    "heights below -500 m": (-999, "-999 on 1 pixels, but heights are from"),
    "heights above 9000 m": (29029, "29029 on 1 pixels, but heights are from"),
}


@pytest.mark.parametrize(
    ("fill", "words"), [pytest.param(*case, marks=shape(words, "refused")) for words, case in FILLS.items()]
)
def test_undeclared_nodata_is_named_and_read_once_it_is_declared(tmp_path, fill, words):
    heights = HEIGHTS.astype(np.float32)
    heights[5, 5] = fill
    path = write(tmp_path / "a.tif", {"fuels": FUELS, "elevation": heights})
    with pytest.raises(ValueError, match=f"band elevation holds {words}"):
        read_landscape(path, Decoding(nodata=()))
    land = read_landscape(path, Decoding(nodata=(fill,)))
    elevation = land.continuous.index("elevation")
    assert not land.values_valid[elevation][5, 5]
    assert np.abs(bands_of(land)["slope_east"]).max() < 1


@shape("32767 undeclared among fuel codes", "refused")
def test_undeclared_nodata_is_no_fuel(tmp_path):
    fuels = FUELS.copy()
    fuels[0] = 32767
    path = write(tmp_path / "a.tif", {"fuels": fuels})
    with pytest.raises(ValueError, match="band fuels holds 32767 on 16 pixels, which stands for no data"):
        read_landscape(path, Decoding())


@shape("65535 undeclared among fuel codes", "refused")
def test_the_largest_of_16_bits_is_no_fuel(tmp_path):
    fuels = FUELS.astype(np.uint16)
    fuels[0] = 65535
    with pytest.raises(ValueError, match="band fuels holds 65535 on 16 pixels, which stands for no data"):
        read_landscape(write(tmp_path / "a.tif", {"fuels": fuels}), Decoding())


@shape("a band without a valid pixel", "read")
def test_a_band_that_holds_nothing_is_told(tmp_path):
    bands = {"fuels": FUELS, "elevation": np.full_like(HEIGHTS, -9999)}
    land = read_landscape(write(tmp_path / "a.tif", bands, nodata=-9999), Decoding())
    assert [note for note in land.notes if note.endswith("a.tif: band elevation has no valid pixel")]


@shape("holes filled with 0", "read")
def test_cliffs_are_told_with_the_height_that_they_stand_at(tmp_path):
    heights = HEIGHTS.astype(np.float32)
    heights[4:8, 4:8] = 0
    land = read_landscape(write(tmp_path / "a.tif", {"fuels": FUELS, "elevation": heights}), Decoding())
    assert any("steeper than 5 metres per metre" in note and "beside the height 0;" in note for note in land.notes)


@shape("elevation in feet", "refused")
def test_heights_in_feet_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", {"fuels": FUELS, "elevation": HEIGHTS.astype(np.int16)}, units=("", "ft"))
    with pytest.raises(ValueError, match="band elevation is in ft; convert it to metres"):
        read_landscape(path, Decoding())


@shape("another format under the name of a GeoTIFF", "refused")
def test_a_virtual_raster_leads_nowhere(tmp_path):
    write(tmp_path / "real.tif", {"fuels": FUELS})
    (tmp_path / "a.tif").write_text(
        f'<VRTDataset rasterXSize="{COLUMNS}" rasterYSize="{ROWS}"><VRTRasterBand dataType="Int16" band="1">'
        f"<SimpleSource><SourceFilename>{tmp_path}/real.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.driver == "VRT"
    with pytest.raises(ValueError, match=r"a\.tif cannot be read as a raster"):
        read_landscape(tmp_path / "a.tif", Decoding())


@shape("cut off", "refused")
def test_a_cut_raster_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", {"fuels": np.tile(FUELS, (40, 40))})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"a\.tif cannot be read as a raster"):
        read_landscape(path, Decoding())


# -- the place on Earth -------------------------------------------------------------------------------------------


def mercator(latitude: float) -> float:
    return 6378137 * math.log(math.tan(math.pi / 4 + math.radians(latitude) / 2))


def land_at(tmp_path: Path, crs: str | CRS | None, x: float, y: float, cell: float, **options) -> Landscape:
    place = {"crs": crs, "transform": from_origin(x, y, cell, cell)}
    bands = {"fuels": FUELS, "elevation": HEIGHTS.astype(np.int16)}
    return read_landscape(write(tmp_path / "a.tif", bands, place), Decoding(**options))


@shape("degrees without a coordinate system", "refused")
def test_degrees_that_nobody_declared_are_no_metres(tmp_path):
    with pytest.raises(
        ValueError, match=r"no coordinate system, and coordinates that are degrees by their size \(2 to"
    ):
        land_at(tmp_path, None, 2, 42, 0.0002)
    assert land_at(tmp_path, None, 2, 42, 0.0002, cell_metres=20).facts["cell_metres"] == pytest.approx(20)


@shape("degrees with a coordinate system in metres", "refused")
def test_degrees_that_are_declared_metres_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has a coordinate system in metres, and coordinates that are degrees"):
        land_at(tmp_path, "EPSG:25831", 2, 42, 0.01)


@shape("metres with a coordinate system in degrees", "refused")
def test_metres_that_are_declared_degrees_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"metres; (correct its georeference|warp it)"):
        land_at(tmp_path, "EPSG:4326", 300_000, 4_600_000, 20)


@shape("metres without a coordinate system", "read")
def test_metres_that_nobody_declared_are_taken(tmp_path):
    assert land_at(tmp_path, None, 300_000, 4_600_000, 20).facts["cell_metres"] == 20


@shape("Web Mercator away from the equator", "read")
@pytest.mark.parametrize("latitude", [0, 30, 45, 60, -70])
def test_slopes_in_web_mercator_are_those_on_the_ground(tmp_path, latitude):
    land = land_at(tmp_path, "EPSG:3857", 1_000_000, mercator(latitude), 20)
    side = 20 * math.cos(math.radians(latitude))
    np.testing.assert_allclose(bands_of(land)["slope_east"], 2 / side, rtol=8e-3)
    np.testing.assert_allclose(bands_of(land)["slope_north"], 3 / side, rtol=8e-3)
    assert land.facts["cell_metres"] == pytest.approx(side, rel=8e-3)
    assert bool(latitude) == any("slopes and areas are those on the ground" in note for note in land.notes)


@shape("UTM", "read")
@shape("feet of a state plane", "read")
@pytest.mark.parametrize(
    ("crs", "x", "y", "cell", "side"),
    [("EPSG:25831", 300_000, 4_600_000, 20, 20), ("EPSG:2263", 984_000, 195_000, 100, 100 * 0.30480061)],
)
def test_projections_that_are_true_to_a_percent_keep_their_own_lengths(tmp_path, crs, x, y, cell, side):
    land = land_at(tmp_path, crs, x, y, cell)
    assert land.facts["cell_metres"] == pytest.approx(side, rel=1e-7)
    assert land.notes == []


@pytest.mark.parametrize(
    ("crs", "x", "y", "cell", "words"),
    [
        pytest.param("EPSG:6933", 1_000_000, 4_500_000, 20, "pixels of .* by .* metres; warp it",
                     marks=shape("a projection that is not conformal", "refused")),
        pytest.param("EPSG:3413", 1_100_000, -1_100_000, 20, "north is .* degrees away from up",
                     marks=shape("north that is not up", "refused")),
        pytest.param("EPSG:3857", 0, mercator(75), 100_000, "metres on the ground; warp it",
                     marks=shape("Mercator over many degrees of latitude", "refused")),
        pytest.param("EPSG:25831", 300_000, 4_600_000, 1e-6, "pixels of 1e-06 by 1e-06 metres; correct",
                     marks=shape("pixels without size", "refused")),
        pytest.param(CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'), 0, 900, 20, "place on Earth is not known",
                     marks=shape("a coordinate system of its own", "refused")),
    ],
)  # fmt: skip
def test_rasters_whose_pixels_are_no_upright_squares_are_refused(tmp_path, crs, x, y, cell, words):
    with pytest.raises(ValueError, match=words):
        land_at(tmp_path, crs, x, y, cell)


def test_the_real_landscape_is_what_rasterio_reads(fire_data):
    path = fire_data / "zona60/landscape/Input_Geotiff.tif"
    land = read_landscape(path, Decoding())
    assert (land.facts["cell_metres"], land.facts["cell_east"], land.facts["cell_north"]) == (20, 20, 20)
    assert land.notes == []
    with rasterio.open(path) as file:
        expected = file.read(file.descriptions.index("elevation") + 1, masked=True)
    np.testing.assert_array_equal(bands_of(land)["elevation"], expected.filled(0))


# -- indices.json -------------------------------------------------------------------------------------------------

FIRES = [Fire(n, (5, 45, 12 * n, 12 * n + 36), (25, 12 * n + 18), 3) for n in (1, 2)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive"), FIRES).root


def boxes(archive: Path, content: str | bytes) -> list[tuple[int, ...]]:
    (archive / "landscape/indices.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    files = {path.relative_to(archive).as_posix(): "" for path in archive_files(str(archive))}
    return [fire.box for fire in list_fires(Archive(archive, files), Decoding()).fires]


ENTRIES = '{"1": [5, 45, 12, 48], "2": %s}'
WHOLE = [(5, 45, 12, 48), (5, 45, 24, 60)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(ENTRIES % "[5, 45, 24, 60]", marks=shape("whole numbers", "read", "indices.json")),
        pytest.param(ENTRIES % "[5.0, 45.0, 24.0, 60.0]", marks=shape("numbers with points", "read", "indices.json")),
        pytest.param(ENTRIES % '["5", "45", "24", "60"]', marks=shape("numbers in quotes", "read", "indices.json")),
        pytest.param((ENTRIES % "[5, 45, 24, 60]").encode("utf-16"), marks=shape("UTF-16", "read", "indices.json")),
    ],
)  # fmt: skip
def test_boxes_however_they_are_written(archive, content):
    assert boxes(archive, content) == WHOLE


NO_BOXES = {
    "fractions": (ENTRIES % "[5, 45.5, 24, 60]", r"entry 2 is \[5, 45\.5, 24, 60\], which is not four whole numbers"),
    "Infinity": (ENTRIES % "[5, Infinity, 24, 60]", r"entry 2 is \[5, Infinity"),
    "numbers beyond all floats": (ENTRIES % "[5, 1e999, 24, 60]", r"entry 2 is \[5, Infinity"),
    "NaN": (ENTRIES % "[5, NaN, 24, 60]", r"entry 2 is \[5, NaN"),
    "true and null": (ENTRIES % "[5, true, null, 60]", r"entry 2 is \[5, true, null"),
    "three numbers": (ENTRIES % "[5, 45, 24]", "which is not four whole numbers"),
    "a text": (ENTRIES % '"5456"', r'entry 2 is "5456", which is not four'),
    "an entry twice": (ENTRIES[:-1] % "[5, 45, 24, 60]" + ', "2": [0, 9, 0, 9]}', "names 2 twice"),
    "a fire twice": (ENTRIES[:-1] % "[5, 45, 24, 60]" + ', "02": [0, 9, 0, 9]}', "has two entries of fire 2"),
    "names that are no numbers": ('{"a": [5, 45, 24, 60]}', "entry 'a' is no number of a fire"),
    "a list": ("[[5, 45, 24, 60]]", "holds no object"),
    "JSON that is cut": ('{"1": [5, 45', "cannot be read"),
    "JSON without end": ("[" * 200_000, "cannot be read"),
    "no text": (b"\xff\xfe\x00", "cannot be read"),
}


@pytest.mark.parametrize("words", [pytest.param(w, marks=shape(w, "refused", "indices.json")) for w in NO_BOXES])
def test_what_is_no_box_is_refused_by_its_entry(archive, words):
    content, sentence = NO_BOXES[words]
    with pytest.raises(ValueError, match=rf"indices\.json.*{sentence}.*it must hold|{sentence}"):
        boxes(archive, content)


# -- frames -------------------------------------------------------------------------------------------------------


def png(pixels: np.ndarray, rows: int, *, interlaced: bool = False) -> bytes:
    """Return an RGBA or grey PNG of which the compressed stream, whole in itself, has only so many rows."""
    height, width = pixels.shape[:2]
    colour = 6 if pixels.ndim == 3 else 0
    parts = [pixels[:rows]]
    if interlaced:
        grid = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        parts = [pixels[y::dy, x::dx] for x, y, dx, dy in grid]
    lines = [line for part in parts if part.size for line in part]
    stream = b"".join(b"\0" + line.tobytes() for line in (lines[:rows] if interlaced else lines))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, int(interlaced))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(stream)) + chunk(b"IEND", b"")


MASK = np.add.outer(np.arange(21), np.arange(19)) % 3 == 0
COLOURS = np.where(MASK[..., None], np.array(BURNT, np.uint8), np.array(OTHER, np.uint8))


@shape("interlaced", "read", "fire frames")
@pytest.mark.parametrize("interlaced", [False, True])
def test_whole_streams_are_read_like_pillow_reads_them(tmp_path, interlaced):
    path = tmp_path / "fire_000.png"
    path.write_bytes(png(COLOURS, 1000, interlaced=interlaced))
    np.testing.assert_array_equal(np.asarray(Image.open(path))[..., 1] == 231, MASK)
    np.testing.assert_array_equal(read_mask(path, 231), MASK)


@shape("a compressed stream that ends early", "refused", "fire frames")
@pytest.mark.parametrize(("rows", "interlaced"), [(0, False), (10, False), (20, False), (30, True)])
def test_a_stream_that_ends_early_shows_no_fire(tmp_path, rows, interlaced):
    path = tmp_path / "fire_000.png"
    path.write_bytes(png(COLOURS, rows, interlaced=interlaced))
    with pytest.raises(ValueError, match="compressed stream ends"):
        read_mask(path, 231)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_images_of_every_kind_are_whole(tmp_path, mode):
    for width in (1, 7, 8, 9, 33):
        Image.new("RGB", (width, 5), "white").convert(mode).save(tmp_path / "a.png")
        assert read_mask(tmp_path / "a.png", 255).tolist() == [[True] * width] * 5


# -- what lies about ----------------------------------------------------------------------------------------------


@shape("other files, folders and broken links in an archive", "skipped", "fire frames")
def test_what_is_not_used_is_counted_and_named(store, tmp_path):
    root = write_archive(tmp_path / "a", FIRES).root
    calm = records_of(store, root)
    assert archive_files(root).passed == ()
    (root / "readme.md").write_text("about")
    (root / "fire_frames/sequence_3b").mkdir()
    (root / "fire_frames/sequence_001/fire_000.jpg").write_bytes(b"")
    (root / "fire_frames/sequence_001/fire_009.png").symlink_to(root / "nowhere.png")
    (root / "landscape/Weathers/Weather1.txt").write_text("")
    (root / "isochrones/.DS_Store").write_text("")
    assert {path.relative_to(root).as_posix(): why for path, why in visible_archive(root).passed} == {
        "fire_frames/sequence_001/fire_000.jpg": "is no .png file",
        "fire_frames/sequence_001/fire_009.png": "is a broken link or no file",
        "fire_frames/sequence_3b": "is no folder sequence_<number>",
        "landscape/Weathers/Weather1.txt": "is no .csv file",
        "readme.md": "is no part of an archive",
    }
    assert records_of(store, root).key == calm.key, "what is not used makes nothing again"


@shape("numbers of many digits", "refused", "fire frames")
def test_images_numbered_by_time_take_no_time(store, tmp_path):
    raw = write_archive(tmp_path / "a", FIRES)
    raw.image(1, 2).rename(raw.image(1, 2).with_name("iso_20240701123000.png"))
    with pytest.raises(ValueError, match="sequence_001 lacks image 2 in isochrones"):
        records_of(store, tmp_path / "a")


def test_bands_of_ones_own_are_scaled_too(tmp_path):
    path = write(tmp_path / "a.tif", {"fuels": FUELS, "site": FUELS * 0 + 4}, scales=(1, 0.5), offsets=(0, 1))
    land = read_landscape(path, Decoding(bands=(BandRecipe(name="site", kind="categorical"),)))
    assert dict(land.categorical)["site"] == (3,)

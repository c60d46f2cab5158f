"""What the fuzzer found, each as small as it can be; all of it ended in a traceback, a hang, or words of a library."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin
from safetensors.torch import save_file

from configs.image_text import ImageFormat
from configs.load import load_config, parse_override
from configs.wildfire import WildfireConfig
from storage.checkpoints import FACTS, Checkpoints
from storage.image_files import PNG_SIGNATURE, Segment, png_has_all_rows
from storage.manifest import ManifestError, load_manifest
from storage.packed_weights import packed_header
from storage.weights import read_tensors
from tasks.captions.read import read_captions
from tasks.era5.archives import unpack
from tasks.era5.catalog import scan_file
from tasks.era5.cf_units import same_unit
from tasks.era5.times import seconds_since_1970
from tasks.fire.images import read_mask
from tasks.fire.landscape import read_landscape
from tasks.fire.wind import read_wind
from tasks.image_text.addresses import is_public
from tasks.image_text.picture import jpeg_orientation, make_picture
from tasks.training.release import CONFIG, Release
from tests.fuzz.readers import fire, lists, models, settings
from tests.fuzz.readers.pictures import chunks_of

NESTED = "[" * 100_000


# -- models -------------------------------------------------------------------------------------------------------


def release(folder: Path, **changes: Any) -> Path:
    """Write a released model whose description is changed; None takes an entry away."""
    for name, data in models._release().items():
        (folder / name).write_bytes(data)
    said = json.loads((folder / CONFIG).read_bytes()) | changes
    (folder / CONFIG).write_text(json.dumps({name: value for name, value in said.items() if value is not None}))
    return folder


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"', NESTED, "\ud800"])
def test_a_description_that_is_no_json_object_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"config.json holds no JSON object; get or make the model again"):
        Release.from_release(tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": None}, r"describes no model that can be built here \(KeyError: 'model'\)"),
        ({"model": [1]}, "describes no model that can be built here"),
        ({"model": {"window": [1, 2], "recipe": {}, "statistics": []}}, r"ValueError: not enough values to unpack"),
        ({"model": {"window": [2, 8, 8], "recipe": {"model": 7}, "statistics": []}}, r"\(model: Input should be"),
        ({"left_out": 7}, "TypeError: 'int' object is not iterable"),
        ({"packed": True}, "describes no model that can be built here"),
        ({"release": 7}, "does not say of what family the model is"),
        ({"release": "tasks.mae"}, "does not say of what family the model is"),
        ({"release": "tasks.training.release:Release"}, "does not say of what family the model is"),
        ({"computed_by": 7}, "says that 7 computes, which does not exist here"),
    ],
)
def test_a_description_of_no_model_is_one_sentence(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told) as refusal:
        Release.from_release(release(tmp_path, **changes))
    assert "\n" not in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize(
    "facts",
    ["", NESTED, "[]", '{"files": "x", "step": 7, "facts": {}}', '{"files": {}, "step": 8, "facts": {}}',
     '{"files": {}, "step": 7, "facts": 7}', '{"files": {"a": [1]}, "step": 7, "facts": {}}'],
)  # fmt: skip
def test_a_checkpoint_with_odd_facts_is_passed_over(facts: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(7, {"a": torch.ones(2)}, {})
    (tmp_path / "step-00000007" / FACTS).write_text(facts)
    found, passed_over = checkpoints.latest()
    assert (found, checkpoints.kept()) == (None, [])
    assert "checkpoint.json is not what was written" in passed_over[0]


def test_a_checkpoint_whose_tensors_are_none_is_named(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(7, {"a": torch.ones(2)}, {})
    (weights,) = (tmp_path / "step-00000007").glob("*.safetensors")
    weights.write_bytes(b"\x02\0\0\0\0\0\0\0[]")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    facts = {"step": 7, "files": {weights.name: [weights.stat().st_size, digest]}, "facts": {}}
    (tmp_path / "step-00000007" / FACTS).write_text(json.dumps(facts))
    found, _ = checkpoints.latest()
    assert found is not None
    for use in (lambda: checkpoints.empty(found, ""), lambda: checkpoints.load(found, {"a": torch.ones(2)})):
        with pytest.raises(ValueError, match=r"step-00000007 cannot be continued from .*; delete it"):
            use()


@pytest.mark.parametrize(
    "entry",
    [{"data_offsets": [0, 4, 8]}, {"data_offsets": [0.5, 4]}, {"data_offsets": [-4, 4]}, {"shape": "ab"}, {"shape": 3},
     {"shape": [True]}, {"data_offsets": "04"}],
)  # fmt: skip
def test_a_safetensors_header_with_odd_numbers_is_none(entry: dict[str, Any], tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="is no safetensors file; get or make it again"):
        read_tensors(path)


@pytest.mark.parametrize("remark", [NESTED, '{"version": 2}', '{"version": 2, "layout": "x", "sha256": "", "more": 1}'])
def test_a_packed_file_that_says_too_little_or_too_much_is_named(remark: str, tmp_path: Path) -> None:
    said = remark.replace("2", str(models.VERSION))
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"packed_weights": said})
    with pytest.raises(ValueError, match="does not say how its weights are packed"):
        packed_header(tmp_path / "a.safetensors")


# -- configurations and addresses ---------------------------------------------------------------------------------

NO_YAML = ("a: 2024-13-45", "a: !!float x", "a: !!int x", "? [a]\n: b", "a: *b", "%s", NESTED[:500])


@pytest.mark.parametrize("text", NO_YAML)
def test_what_is_no_yaml_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.yaml is not valid YAML: ") as refusal:
        load_config(WildfireConfig, path)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"--set .* is not valid YAML: "):
        parse_override(f"a={text}")


def test_a_profile_in_latin_1_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes("source: {path: Müller}".encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.yaml is not valid YAML"):
        load_config(WildfireConfig, path)


def test_a_long_value_is_shown_in_part(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"source: {'a' * 9000}")
    with pytest.raises(ValueError, match="source: ") as refusal:
        load_config(WildfireConfig, path)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("address", ["fe80::5efe:808:808", "fd00::5efe:808:808", "ff02::200:5efe:808:808"])
def test_a_private_address_that_carries_a_public_one_is_private(address: str) -> None:
    assert not is_public(address)


# -- weather ------------------------------------------------------------------------------------------------------


def weather(path: Path, form: str = "NETCDF3_CLASSIC", **attributes: Any) -> Path:
    with netCDF4.Dataset(path, "w", format=form) as file:
        for name, values, units in (
            ("time", np.arange(2), "hours since 2024-01-01"),
            ("latitude", np.arange(2.0), "degrees_north"),
            ("longitude", np.arange(3.0), "degrees_east"),
        ):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,))[:] = values
            file[name].units = units
        field = file.createVariable("t2m", "i2", ("time", "latitude", "longitude"))
        field.setncatts({"units": "K", **attributes})
        field[:] = 1
    return path


def problem(path: Path) -> str:
    return scan_file(path, "0" * 64, path.parent / "members").problem or ""


@pytest.mark.parametrize("length", [-1, 2**31 - 1])
def test_a_classic_header_with_an_impossible_length_is_damaged(length: int, tmp_path: Path) -> None:
    path = weather(tmp_path / "a.nc")
    data = bytearray(path.read_bytes())
    struct.pack_into(">i", data, data.index(b"time") - 4, length)
    path.write_bytes(data)
    assert "damaged or cut-off classic NetCDF header" in problem(path)


def test_names_that_are_no_utf_8_are_damage(tmp_path: Path) -> None:
    path = weather(tmp_path / "a.nc")
    path.write_bytes(path.read_bytes().replace(b"latitude", b"latit\xabde"))
    assert "names that are no UTF-8" in problem(path)


def test_an_unsigned_that_is_no_word_is_named(tmp_path: Path) -> None:
    assert "_Unsigned" in problem(weather(tmp_path / "a.nc", _Unsigned=np.array([1.0, 2.0])))


def test_levels_in_two_dimensions_are_looked_at(tmp_path: Path) -> None:
    path = weather(tmp_path / "a.nc")
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("level", 2)
        file.createVariable("level", "f8", ("level", "latitude"))[:] = 500
        file["level"].units = "hPa"
        file.createVariable("z", "f4", ("time", "level", "latitude", "longitude"))[:] = 1
    assert "holds a pressure level twice" in " ".join(scan_file(path, "0" * 64, tmp_path).skipped)


@pytest.mark.parametrize("units", ["hours since 0000-00-00", "hours since 2024-99-99", "hours since x"])
def test_a_date_that_is_none_is_named(units: str) -> None:
    with pytest.raises(ValueError, match="no date to count from"):
        seconds_since_1970(np.array([1]), units, "standard")


@pytest.mark.parametrize("unit", ["m**9**9**9", "9**9**9**9", "m**(9**9**9)", "m^9^9^9^9", "m " * 50_000])
def test_a_unit_takes_no_time_to_work_out(unit: str) -> None:
    assert not same_unit(unit, "K")


@pytest.mark.parametrize(("at", "value"), [(6, 171), (8, 1 << 11), (46, 0xFF)])
def test_an_odd_zip_directory_is_a_sentence(at: int, value: int, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ae.nc", weather(tmp_path / "a.nc").read_bytes())
    data = bytearray(path.read_bytes().replace(b"ae.nc", b"\xe4e.nc"))
    struct.pack_into("<H", data, data.index(b"PK\1\2") + at, value)
    path.write_bytes(data)
    assert "ZIP archive" in problem(path)


def test_a_zip_member_without_a_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ae.nc", weather(tmp_path / "a.nc").read_bytes())
    path.write_bytes(path.read_bytes().replace(b"ae.nc", b"\0e.nc"))  # a name ends at a NUL
    ((name, unpacked),) = unpack(path, tmp_path / "unpacked")
    assert name == "without a name"
    assert isinstance(unpacked, Path)
    assert unpacked.read_bytes() == (tmp_path / "a.nc").read_bytes()


def test_a_long_header_is_shown_in_part(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x" * 9000 + ",y\n1,2\n")
    for read in (lambda path: read_captions([path]), lambda path: read_wind(path, 2, fire.DECODING)):
        with pytest.raises(ValueError, match="column") as refusal:
            read(tmp_path / "a.csv")
        assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a\0b", ""])
def test_a_manifest_that_names_files_elsewhere_is_none(name: str, tmp_path: Path) -> None:
    facts = settings._manifest()
    facts = settings._sealed({**facts, "files": [{**facts["files"][0], "path": name}]})
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(ManifestError, match="names a file outside of its folder"):
        load_manifest(tmp_path / "manifest.json")


# -- fires and images ---------------------------------------------------------------------------------------------


def raster(path: Path, crs: str | None = "EPSG:25831", side: float = 20.0, **tags: Any) -> Path:
    place = from_origin(300_000, 4_600_000, side, side)
    with rasterio.open(
        path, "w", driver="GTiff", count=2, dtype="float32", height=4, width=5, crs=crs, transform=place
    ) as file:
        for index, name in enumerate(("elevation", "fuels"), 1):
            file.write(np.full((4, 5), 100, np.float32), index)
            file.set_band_description(index, name)
        file.scales = tags.get("scales", (1, 1))
        file.offsets = tags.get("offsets", (0, 0))
    return path


@pytest.mark.parametrize("tags", [{"scales": (1e300, 1)}, {"offsets": (0, 1e300)}, {"scales": (1, 1e308)}])
def test_a_scale_that_leads_beyond_all_numbers_is_named(tags: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"band (elevation|fuels) has values up to .* by its scale"):
        read_landscape(raster(tmp_path / "a.tif", **tags), fire.DECODING)


def test_a_raster_with_texts_that_are_no_utf_8_is_named(tmp_path: Path) -> None:
    path = raster(tmp_path / "a.tif")
    path.write_bytes(path.read_bytes().replace(b"elevation", b"eleva\xffion"))
    with pytest.raises(ValueError, match="texts that are no UTF-8"):
        read_landscape(path, fire.DECODING)


def test_a_place_where_a_projection_has_no_length_is_named(tmp_path: Path) -> None:
    path = raster(tmp_path / "a.tif", crs="+proj=ortho +lat_0=80 +ellps=WGS84 +units=m", side=2e-3)
    with pytest.raises(ValueError, match=r"metres|projection"):
        read_landscape(path, fire.DECODING)


def test_a_pixel_that_its_palette_lacks_is_named(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([253, 231, 36])
    image.save(tmp_path / "a.png", bits=8)
    chunks = [
        (kind, data[:3] if kind == b"PLTE" else data) for kind, data in chunks_of((tmp_path / "a.png").read_bytes())
    ]
    (tmp_path / "a.png").write_bytes(PNG_SIGNATURE + b"".join(map(chunk, chunks)))
    with pytest.raises(ValueError, match="pixels of colour 1, and a palette of 1"):
        read_mask(tmp_path / "a.png", 231)


def chunk(found: tuple[bytes, bytes]) -> bytes:
    kind, data = found
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def test_an_orientation_that_is_cut_off_turns_nothing() -> None:
    for entries in (b"", b"\0\x01", b"\0\x01\x01\x12\0\x03\0\0", b"\0\x01\x01\x12\0\x05\0\0\0\x01\0\0\0\x0a"):
        exif = b"Exif\0\0MM\0*\0\0\0\x08" + entries
        segment = Segment(0xE1, 0, len(exif))
        assert jpeg_orientation(exif, [segment]) == 1


def test_a_jpeg_with_chroma_sampled_at_every_fourth_row_is_read() -> None:
    """4:4:1, for which a decoder has no name. Every block is the middle of its range, in the standard Huffman codes."""
    written = io.BytesIO()
    Image.new("RGB", (32, 32), (128, 128, 128)).save(written, "JPEG", subsampling=0)
    whole = written.getvalue()
    frame, scan = whole.index(b"\xff\xc0"), whole.index(b"\xff\xda")
    data = bytearray(whole[: scan + 2 + int.from_bytes(whole[scan + 2 : scan + 4], "big")])
    data[frame + 11] = 0x14  # of the first component 1 x 4 blocks
    luma, chroma = "00" + "1010", "00" + "00"  # no change of the mean, end of block
    data += int(4 * (4 * luma + 2 * chroma), 2).to_bytes(16, "big") + b"\xff\xd9"
    picture = make_picture(bytes(data), ImageFormat(side=32))
    assert (picture.original_width, picture.original_height) == (32, 32)
    assert np.abs(np.asarray(Image.open(io.BytesIO(picture.jpeg))).astype(int) - 128).max() <= 1


@pytest.mark.parametrize("length", [0, 12, 14])
def test_a_png_header_of_another_length_has_no_rows(length: int) -> None:
    header = length.to_bytes(4, "big") + b"IHDR" + bytes(length + 4)
    assert not png_has_all_rows(b"\x89PNG\r\n\x1a\n" + header + b"\0\0\0\0IEND\0\0\0\0")


@pytest.mark.parametrize(
    ("name", "value"),
    [("GNU.sparse.map", "\u2028"), ("size", "-5"), ("GNU.sparse.map", "1,x"), ("size", "9" * 30)],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_tar_header_without_a_number_is_no_whole_tar(name: str, value: str, first: bool, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for member in (tarfile.TarInfo("a.jpg"), tarfile.TarInfo("a.txt")):
            member.pax_headers = {name: value} if (member.name == "a.jpg") == first else {}
            tar.addfile(member)
    with pytest.raises(ValueError, match=r"0\.tar is no whole tar \(.*\); fetch or write it again"):
        lists._read_tar(tmp_path, tmp_path)

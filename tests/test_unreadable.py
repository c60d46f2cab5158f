"""Files that are closed to this user: every reader says that they cannot be read and why, and calls none damaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.fire_data import Decoding
from configs.image_text import Columns
from configs.load import read_profile
from storage.checkpoints import Checkpoints
from storage.raw import RawIndex
from tasks.captions.read import read_captions
from tasks.captions.regions import load_regions
from tasks.era5.catalog import scan_file
from tasks.fire.archive import INDICES, Archive, list_fires
from tasks.fire.images import read_mask
from tasks.fire.landscape import read_landscape
from tasks.fire.wind import read_wind
from tasks.image_text.annotations import Annotations
from tasks.image_text.sources import ListFile
from tasks.image_text.tables import read_parquet
from tasks.image_text.tars import read_tar
from tasks.image_text.text_lists import lines

NOBODY = 65534


def still(done: int) -> None:
    pass


READERS: dict[str, Callable[[Path], Any]] = {
    "a.parquet": lambda path: list(read_parquet(path, Columns(caption="caption"), still)),
    "a.tsv": lambda path: list(lines(path)),
    "a.tar": lambda path: list(read_tar(ListFile(path, path.name, ""), "caption", False, still)),
    "a.json": lambda path: Annotations([ListFile(path, path.name, "")], {}),
    "captions.csv": lambda path: read_captions([path]),
    "regions.csv": load_regions,
    "a.nc": lambda path: _raised(scan_file(path, "0" * 64, path.parent).problem),
    "a.tif": lambda path: read_landscape(path, Decoding()),
    "wind.csv": lambda path: read_wind(path, 2, Decoding()),
    "frame.png": lambda path: read_mask(path, 255),
    "profile.yaml": read_profile,
}


def _raised(problem: str | None) -> None:
    raise ValueError(problem)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Give up the rights of root for a while."""
    if os.geteuid() != 0:
        yield
        return
    import rasterio  # noqa: F401  nobody may find it later

    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def closed(path: Path, content: bytes = b"x") -> Path:
    """Write a file that root alone may read, in folders that all may enter."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    path.chmod(0)
    for folder in path.parents:
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    return path


@pytest.mark.input_shape(format="raw files", shape="closed to this user, for every reader", outcome="refused")
@pytest.mark.parametrize("name", READERS)
def test_a_closed_file_is_not_called_damaged(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    path = closed(tmp_path / name)
    request.getfixturevalue("as_nobody")
    with pytest.raises(
        ValueError, match=r"cannot be read \(.*[Pp]ermission denied\)?.*; give this user the right"
    ) as told:
        READERS[name](path)
    assert "again" not in str(told.value)
    assert "damaged" not in str(told.value)


def test_closed_boxes_of_fires_are_named(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    archive = Archive(tmp_path, {INDICES: ""})
    closed(tmp_path / INDICES)
    request.getfixturevalue("as_nobody")
    with pytest.raises(ValueError, match=r"indices\.json cannot be read \(Permission denied\)"):
        list_fires(archive, Decoding())


def test_a_file_that_was_closed_since_it_was_hashed_is_named(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = closed(tmp_path / "a.nc")
    index = RawIndex(tmp_path / ".raw.sqlite")
    path.chmod(0o644)
    index.read("files", [path])
    path.chmod(0)
    (tmp_path / ".raw.sqlite").chmod(0o666)
    tmp_path.chmod(0o777)
    request.getfixturevalue("as_nobody")
    with pytest.raises(ValueError, match=r"a\.nc cannot be read \(Permission denied\)"):
        index.read("files", [path])


def test_a_closed_checkpoint_is_not_passed_over(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    closed(tmp_path / "step-00000005" / "checkpoint.json")
    request.getfixturevalue("as_nobody")
    with pytest.raises(ValueError, match=r"checkpoint\.json cannot be read \(Permission denied\)"):
        Checkpoints(tmp_path, 1).latest()

"""Where lists of images come from: the raw files of a source, in their order, and what of a source shapes its rows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.image_text import Columns, ImageFolder, ParquetLists, ShardFolder, Source, TsvLists
from configs.image_text_sample import SampleScenes
from storage.assets import Asset
from storage.hashing import digest
from storage.raw import FoundFiles, RawInput, find_files, inside
from tasks.session import Pending

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif")
SUFFIXES = {
    "tsv": (".tsv", ".tsv.gz", ".txt"),
    "parquet": (".parquet",),
    "webdataset": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"),
}
COLUMN_OF_URLS = re.compile(rb"(^|[\t,;|\"\x80-\xff])\s*https?://", re.IGNORECASE | re.MULTILINE)
"""What lists have and other texts seldom do; a byte order mark may stand before it."""
LOOKED_AT = 2**20
SAMPLE_COLUMNS = {
    "pixmo_cap": Columns(url="image_url", caption="caption"),
    "pixmo_qa": Columns(url="image_url", sha256="image_sha256", question="question", answer="answer"),
}


@dataclass(frozen=True, slots=True)
class ListFile:
    """A raw file of a source."""

    path: Path
    name: str
    """What people call it: relative to an image folder, else without its folder."""
    sha256: str


def is_image(file: ListFile | Path) -> bool:
    """Whether a file is one of those that captions of an image folder are about, by its name."""
    return file.name.lower().endswith(IMAGE_SUFFIXES)


def source_files(source: Source) -> FoundFiles:
    """Return the raw files of a source on this machine, and what was passed over; `ValueError` where there are none."""
    match source:
        case ImageFolder():
            return _folder_files(source)
        case TsvLists() | ParquetLists() | ShardFolder():
            suffixes = SUFFIXES[source.kind]
            return find_files(
                source.paths,
                lambda path: (
                    path.name.lower().endswith(suffixes) and (path.suffix.lower() != ".txt" or _has_urls(path))
                ),
                lambda path: "has no URLs" if path.name.lower().endswith(suffixes) else f"is no {suffixes[0]} file",
            )
        case SampleScenes():
            raise AssertionError("generated lists are in an asset")


def _has_urls(path: Path) -> bool:
    """Whether a text file may be a list: a column of it begins with a URL. What cannot be looked at may be, too."""
    try:
        with path.open("rb") as file:
            return COLUMN_OF_URLS.search(file.read(LOOKED_AT).replace(b"\0", b"")) is not None
    except OSError:
        return True


def _folder_files(source: ImageFolder) -> FoundFiles:
    folder, captions = _absolute(source.path), _absolute(source.captions)
    if not folder.is_dir():
        raise ValueError(f"source.path: there is no folder {folder}; give the one that holds the images")
    if not captions.is_file() or is_image(captions):
        raise ValueError(f"source.captions: there is no list {captions}; give one of file name, tab, caption")
    lists = {captions} | ({_absolute(source.questions)} if source.questions else set())
    if gone := [path for path in lists if not path.is_file()]:
        raise ValueError(f"source.questions: there is no file {gone[0]}; give the JSON file of questions")
    found = inside(folder)
    images = [path for path in found if is_image(path)]
    if not images:
        raise ValueError(
            f"source.path: {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}); give the folder that does"
        )
    others = [(path, "is no image by its name") for path in found if not is_image(path) and path not in lists]
    return FoundFiles(sorted({*lists, *images}), found.hidden, [*found.passed, *others])


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def list_files(raw: Asset | RawInput, source: Source) -> list[ListFile]:
    """Return the files of a source in the order in which their rows count, by path."""
    if isinstance(raw, Asset):
        return [
            ListFile(raw.folder / record.path, record.path, record.sha256)
            for record in raw.manifest.files
            if record.path in ("list.tsv", "list.parquet")
        ]
    folder = _absolute(source.path) if isinstance(source, ImageFolder) else None
    files = sorted(raw.files, key=lambda file: str(file.path))
    return [ListFile(file.path, _name(file.path, folder), file.sha256) for file in files]


def _name(path: Path, folder: Path | None) -> str:
    return path.relative_to(folder).as_posix() if folder and path.is_relative_to(folder) else path.name


def list_names(raw: Any, source: Source) -> Any:
    """Return a digest of what contents do not tell: names and order of files, wherever they lie.

    In an image folder names tie captions to images; elsewhere they stand beside dropped rows. What is pending in a plan
    is returned as it is.
    """
    if isinstance(raw, Pending):
        return raw
    return digest([[file.sha256, file.name] for file in list_files(raw, source)])


def reading(source: Source) -> dict[str, Any]:
    """Return what of a source's settings shapes its rows; where files lie does not."""
    if not isinstance(source, SampleScenes):
        return source.model_dump(mode="json", exclude={"path", "paths", "captions", "questions"})
    if columns := SAMPLE_COLUMNS.get(source.layout):
        return {"kind": "parquet", "columns": columns.model_dump(mode="json")}
    return {"kind": "tsv", "order": "url_first"}

"""The reader of existing WebDataset tars: images stay where they are, and rows say where that is.

Samples are those of the `webdataset` library, key by key and in order. Where that would lose members or mix samples,
the tar is refused, or what is lost is a dropped row.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from storage.files import readable
from tasks.image_text.row import Dropped, Moved, Row, Rows, as_text, clean, drop
from tasks.image_text.sources import IMAGE_SUFFIXES, ListFile

PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "ZIP"}
"""What files that are called tars are instead, by their first bytes."""
META = re.compile(r"__[^/]*__($|/)")
"""Names that webdataset takes for facts about the tar."""
LONGEST_TEXT = 2**24
"""Bytes of a member with text."""
Parts = Mapping[str, tarfile.TarInfo]


class Sample(NamedTuple):
    """Members of one key that stand together, by suffix, and links under the key, which hold no content."""

    key: str
    parts: Parts
    links: Sequence[str]


def read_tar(file: ListFile, caption_field: str, several: bool, moved: Moved) -> Rows:
    """Read the samples of a tar: where the image lies, and its text from `txt` or a field of `json`.

    A SHA-256 in the `json` is not expected of the image: writers of such tars put that of the original there.
    """
    _refuse_packed(file)
    try:
        with readable(file.path), _open(file.path) as tar:
            for found in _samples(file, tar):
                if isinstance(found, Dropped):
                    yield found
                else:
                    yield from _of_sample(file, tar, found, caption_field, several)
                moved(tar.offset)
    except tarfile.TarError as error:
        raise ValueError(f"{file.name} is no whole tar ({error}); fetch or write it again") from None


def is_foreign(name: str) -> bool:
    """Whether a member is one that macOS adds and that nobody wrote."""
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


def _refuse_packed(file: ListFile) -> None:
    with readable(file.path), file.path.open("rb") as stream:
        head = stream.read(8)
    if kind := next((kind for start, kind in PACKED.items() if head.startswith(start)), None):
        raise ValueError(
            f"{file.name} is compressed with {kind}; images are read in place, so unpack it to a plain tar first"
        )


def _samples(file: ListFile, tar: tarfile.TarFile) -> Iterator[Sample | Dropped]:
    """Yield samples, and members that belong to none as dropped rows.

    `ValueError` where a sample's members stand apart, or where one suffix is there twice: webdataset would make pieces
    of the first, and stops at the second.
    """
    earlier: dict[str, set[str]] = {}
    links: dict[str, list[str]] = defaultdict(list)
    waiting: list[Dropped] = []
    for key, group in groupby(_keyed(tar, links, waiting), lambda found: found[0]):
        parts: dict[str, tarfile.TarInfo] = {}
        for _, suffix, member in group:
            if suffix in parts:
                raise ValueError(
                    f"{file.name}: sample {key} has two members {suffix}, and webdataset stops there; take one out"
                )
            parts[suffix] = member
        seen = earlier.setdefault(key, set())
        if seen and not seen & parts.keys():
            raise ValueError(
                f"{file.name}: the members of sample {key} do not stand together, so webdataset would make several "
                "samples of it; sort the members by name (tar --sort=name)"
            )
        seen.update(parts)
        yield Sample(key, parts, links.pop(key, ()))
        yield from waiting
        waiting.clear()
    yield from waiting
    yield from (drop("link", f"{key}.{suffix}") for key, suffixes in links.items() for suffix in suffixes)


def _keyed(
    tar: tarfile.TarFile, links: Mapping[str, list[str]], waiting: list[Dropped]
) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield the members that samples are made of; note links by their key, and why others are part of no sample."""
    for member in _members(tar):
        key, suffix = _key(member.name)
        reason = _no_part(member, key)
        if key is None or reason:
            waiting.append(drop(reason, member.name))
        elif member.islnk() or member.issym():
            links[key].append(suffix)
        else:
            yield key, suffix, member


def _no_part(member: tarfile.TarInfo, key: str | None) -> str:
    """Return why a member is part of no sample; empty where it is one."""
    if is_foreign(member.name):
        return "macos_file"
    if META.match(member.name):
        return "meta_member"
    if key is None:
        return "no_suffix"
    if member.issparse():
        return "sparse_member"
    return "" if member.isreg() or member.islnk() or member.issym() else "no_file"


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar but folders, without keeping them; `tarfile` itself takes a cut for the end."""
    while (member := _next(tar)) is not None:
        tar.members.clear()  # type: ignore[attr-defined]
        if not member.isdir():
            yield member
    assert tar.fileobj
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"no member and no end at byte {tar.offset}")
    _refuse_more(tar.fileobj)


def _open(path: Path) -> tarfile.TarFile:
    with _sound():  # the first header is read at once
        return tarfile.open(path, "r:")


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    with _sound():
        member = tar.next()
        if member is not None and member.size < 0:
            raise ValueError(f"{member.size} bytes")
        return member


@contextlib.contextmanager
def _sound() -> Iterator[None]:
    """Raise `TarError` for headers whose numbers are none, or send `tarfile` to a place that no file has."""
    try:
        yield
    except (ValueError, OverflowError, MemoryError) as error:
        raise tarfile.ReadError(f"a header of it holds no number: {' '.join(str(error).split())}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise tarfile.ReadError("a header of it tells of a place that no file has") from None


def _refuse_more(stream: Any) -> None:
    """Refuse a tar with anything but zeros after its end, which no reader gets to see."""
    while data := stream.read(2**20):
        if data.count(0) < len(data):
            place = stream.tell() - len(data.lstrip(tarfile.NUL))
            raise tarfile.ReadError(
                f"something follows its end at byte {place}, as when tars are joined with cat: join them with "
                "tar --concatenate"
            )


@cache
def _splitter() -> Any:
    from webdataset.tariterators import base_plus_ext  # it imports torch

    return base_plus_ext


def _key(name: str) -> tuple[str | None, str]:
    """Split a member's name as WebDataset does; `_key('a/b.seg.PNG') => ('a/b', 'seg.png')`."""
    key, suffix = _splitter()(name)
    return key, (suffix or "").lower()


def _of_sample(
    file: ListFile, tar: tarfile.TarFile, sample: Sample, caption_field: str, several: bool
) -> Iterator[Row | Dropped]:
    key, parts, links = sample
    image = next((parts[suffix[1:]] for suffix in IMAGE_SUFFIXES if suffix[1:] in parts), None)
    if image is None:
        yield drop("link" if links else "no_image", key)
        return
    try:
        facts = json.loads(_content(tar, parts, "json") or b"{}")
        url, text = as_text(facts.get("url")), clean(_content(tar, parts, "txt").decode())
        captions = [text] if text else _captions(facts.get(caption_field), several)
        "".join((url, *captions)).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        yield drop("bad_text", key)
        return
    if not any(captions):
        yield drop("link" if {"txt", "json"} & set(links) else "no_text", key)
        return
    place = f"raw:{file.sha256}@{image.offset_data}+{image.size}"
    yield from (Row(url, place, "", caption) if caption else drop("no_text", key) for caption in captions)
    yield from (drop("link", f"{key}.{suffix}") for suffix in links)


def _captions(value: Any, several: bool) -> list[str]:
    """Return what a field of JSON says; `TypeError` for what is no text, and for lists unless there may be several."""
    return [as_text(entry) for entry in value] if several and isinstance(value, list) else [as_text(value)]


def _content(tar: tarfile.TarFile, parts: Parts, suffix: str) -> bytes:
    if suffix not in parts:
        return b""
    if parts[suffix].size > LONGEST_TEXT:
        raise ValueError("too long for a text")
    stream = tar.extractfile(parts[suffix])
    return stream.read() if stream else b""

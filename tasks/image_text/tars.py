"""The reader of existing WebDataset tars: images stay where they are, and rows say where that is."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby

from tasks.image_text.row import Dropped, Moved, Row, Rows, drop
from tasks.image_text.sources import IMAGE_SUFFIXES, ListFile


def read_tar(file: ListFile, caption_field: str, moved: Moved) -> Rows:
    """Read the samples of a tar: where the image lies, and its text from `txt` or a field of `json`.

    A SHA-256 in the `json` is not expected of the image: writers of such tars put that of the original there.
    """
    try:
        with tarfile.open(file.path, "r:") as tar:
            for key, group in groupby(_members(tar), lambda member: _split(member.name)[0]):
                yield _of_sample(file, tar, key, {_split(m.name)[1]: m for m in group}, caption_field)
                moved(tar.offset)
    except tarfile.TarError as error:
        raise ValueError(f"{file.name} is no whole tar ({error}); fetch or write it again") from None


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a tar without keeping them; `tarfile` itself takes a cut for the end."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]
        if member.isfile():
            yield member
    assert tar.fileobj
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"no member and no end at byte {tar.offset}")


def _split(name: str) -> tuple[str, str]:
    """Split a member's name as WebDataset does; `_split('a/b.seg.png') => ('a/b', 'seg.png')`."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _of_sample(
    file: ListFile, tar: tarfile.TarFile, key: str, parts: Mapping[str, tarfile.TarInfo], caption_field: str
) -> Row | Dropped:
    image = next((parts[suffix[1:]] for suffix in IMAGE_SUFFIXES if suffix[1:] in parts), None)
    if image is None:
        return drop("no_image", key)
    try:
        facts = json.loads(_content(tar, parts, "json") or b"{}")
        url, text = (str(facts.get(name) or "").strip() for name in ("url", caption_field))
        caption = _content(tar, parts, "txt").decode().strip() or text
        f"{url}{caption}".encode()
    except (ValueError, AttributeError):
        return drop("bad_text", key)
    if not caption:
        return drop("no_text", key)
    return Row(url, f"raw:{file.sha256}@{image.offset_data}+{image.size}", "", caption)


def _content(tar: tarfile.TarFile, parts: Mapping[str, tarfile.TarInfo], suffix: str) -> bytes:
    stream = tar.extractfile(parts[suffix]) if suffix in parts else None
    return stream.read() if stream else b""

"""The reader of questions in JSON about the images of a folder: VQAv2, GQA, TextVQA, and lists like POPE's."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import splitext
from typing import Any

from storage.files import readable
from tasks.image_text.row import Moved, Row, Rows, as_text, drop
from tasks.image_text.sources import ListFile

DIGITS = re.compile(r"(\d+)$")
"""The number that a name ends in without its ending: COCO_val2014_000000000042."""
NAMES = ("file", "image", "file_name", "filename")
IDS = ("image_id", "imageId")
SEVERAL = "several"
"""Stands for the SHA-256 of an image where more than one may be meant."""
SHAPES = (
    'VQAv2 ({"annotations": [...]}, with its questions beside it), GQA (questions by id), TextVQA ({"data": [...]}), '
    "or a list of objects with question, answer, and file or image_id"
)
Record = Mapping[str, Any]


def is_annotations(file: ListFile) -> bool:
    """Whether a file of an image folder holds questions, by its name."""
    return file.name.lower().endswith(".json")


class Annotations:
    """The files of questions and answers of an image folder."""

    def __init__(self, files: Sequence[ListFile], images: Mapping[str, ListFile]) -> None:
        self._content = {file.name: _load(file.path) for file in files}
        self._asked = {
            record["question_id"]: record
            for content in self._content.values()
            if isinstance(content, dict) and "questions" in content
            for record in _objects(content["questions"])
            if "question_id" in record
        }
        self._images = images
        called = [(splitext(image.name)[0], image) for image in images.values()]
        self._names = _index((end, image) for _, image in called for end in _ends(image.name))
        self._stems = _index((end, image) for path, image in called for end in _ends(path))
        self._numbers = _index(
            (digits[1].lstrip("0") or "0", i) for path, i in called if (digits := DIGITS.search(path))
        )
        folders = {path.rpartition("/")[0] for path, _ in called} - {""}
        self._folders = {end for folder in folders for end in _ends(folder)}

    def rows(self, file: ListFile, moved: Moved) -> Rows:
        """Yield the rows of a file; of one that holds questions alone, none."""
        records = list(_records(self._content[file.name], file.name))
        size = file.path.stat().st_size
        for number, record in enumerate(records, 1):
            yield self._row(record)
            moved(size * number // len(records))

    def _row(self, record: Record) -> Any:
        asked = {**self._asked.get(record.get("question_id"), {}), **record}
        shown = json.dumps({name: asked.get(name) for name in ("question", *IDS)}, ensure_ascii=False)
        image = self._image(asked)
        try:
            question, answer = as_text(asked.get("question")), _answer(asked)
        except (TypeError, UnicodeDecodeError):
            return drop("bad_text", shown)
        if image is None:
            return drop("no_such_file", shown)
        if image == SEVERAL:
            return drop("ambiguous_image", shown)
        if not (question and answer):
            return drop("no_text", shown)
        kept = {
            name: asked[name] for name in ("question_id", "question_type", "answer_type", "answers") if name in asked
        }
        extra = json.dumps(kept, sort_keys=True, ensure_ascii=False) if kept else ""
        return Row("", f"raw:{image}", image, "", question, answer, False, extra)

    def _image(self, record: Record) -> str | None:
        """Return the SHA-256 of the image that a record names by a file or by an id, or SEVERAL."""
        for name in NAMES:
            if isinstance(found := record.get(name), str):
                return self._of_id(found) if found.isdecimal() else self._of_file(found)
        for name in IDS:
            if name in record:
                return self._of_id(record[name])
        return None

    def _of_file(self, name: str) -> str | None:
        """Return the image of a file name, whose ending may be another, and whose folders need not all be there.

        A folder that is there and lacks the file is not left out: another folder's file of that name is another image.
        """
        if exact := self._images.get(name):
            return exact.sha256
        for end in _ends(name):
            if found := self._names.get(end) or self._stems.get(splitext(end)[0]):
                return found
            if end.rpartition("/")[0] in self._folders:
                return None
        return None

    def _of_id(self, value: Any) -> str | None:
        """Return the image of an id: a text may be all of a file's name, and a number is what the name ends in."""
        exact = self._stems.get(value) if isinstance(value, str) else None
        return exact or self._numbers.get(f"{value}".lstrip("0") or "0")


def _index(called: Iterable[tuple[str, ListFile]]) -> dict[str, str]:
    """Return the SHA-256 of the image that is called so, by what it is called; SEVERAL where there are others."""
    found: dict[str, str] = {}
    for key, image in called:
        found[key] = image.sha256 if found.get(key, image.sha256) == image.sha256 else SEVERAL
    return found


def _ends(path: str) -> Iterator[str]:
    """Yield a path and what is left of it without its first folders, the longest first: a/b/c, b/c, c."""
    parts = path.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _load(path: Path) -> Any:
    with readable(path):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no readable JSON ({' '.join(str(error).split())}); fetch it again") from None


def _records(content: Any, name: str) -> Iterator[Record]:
    if isinstance(content, dict):
        if "questions" in content and "annotations" not in content:
            return
        if isinstance(found := content.get("annotations", content.get("data")), list):
            content = found
        elif content and all(isinstance(value, dict) and "question" in value for value in content.values()):
            content = [{"question_id": key, **value} for key, value in content.items()]
    if not isinstance(content, list):
        raise ValueError(f"{name} is no file of questions and answers that is known here: {SHAPES}")
    yield from _objects(content)


def _objects(records: Any) -> Iterator[Record]:
    yield from (record for record in records if isinstance(record, dict))


def _answer(record: Record) -> str:
    """Return the answer, of several people's the most frequent one, of equally frequent ones the first."""
    if (one := record.get("multiple_choice_answer", record.get("answer"))) is not None:
        return as_text(one)
    given = record.get("answers") or ()
    texts = [as_text(each.get("answer") if isinstance(each, dict) else each) for each in given]
    counts = Counter(text for text in texts if text)
    return counts.most_common(1)[0][0] if counts else ""

"""The reader of questions in JSON about the images of a folder: VQAv2, GQA, TextVQA, and lists like POPE's."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.files import readable
from tasks.image_text.row import Moved, Row, Rows, as_text, drop
from tasks.image_text.sources import ListFile

DIGITS = re.compile(r"(\d+)$")
NAMES = ("file", "image", "file_name", "filename")
IDS = ("image_id", "imageId")
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
        self._by_id = {key: image for image in images.values() for key in _ids(image)}

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
        if not (question and answer):
            return drop("no_text", shown)
        kept = {
            name: asked[name] for name in ("question_id", "question_type", "answer_type", "answers") if name in asked
        }
        extra = json.dumps(kept, sort_keys=True, ensure_ascii=False) if kept else ""
        return Row("", f"raw:{image.sha256}", image.sha256, "", question, answer, False, extra)

    def _image(self, record: Record) -> ListFile | None:
        """Return the image that a record names: by its file, or by the number or name that its own ends in."""
        for name in NAMES:
            if isinstance(found := record.get(name), str):
                return self._images.get(found) or self._by_id.get(Path(found).stem)
        for name in IDS:
            if name in record:
                return self._by_id.get(str(record[name]).lstrip("0") or "0") or self._by_id.get(str(record[name]))
        return None


def _ids(image: ListFile) -> Iterator[str]:
    """Yield what an image may be called: its name without ending, and the number at its end (COCO_val2014_…0042)."""
    stem = Path(image.name).stem
    yield stem
    if digits := DIGITS.search(stem):
        yield digits[1].lstrip("0") or "0"


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

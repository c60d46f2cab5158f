"""Questions about images: annotations of public data sets, and questions made of columns."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from configs.image_text import Columns, ImageFolder
from tasks.image_text.annotations import Annotations
from tasks.image_text.row import Row
from tasks.image_text.sources import ListFile, source_files
from tests.conftest import shared_data
from tests.image_text.lists import dropped, read, rows
from tests.image_text.test_lists_odd import shape, table

PICTURES = ("COCO_val2014_000000000042.jpg", "2370799.jpg", "0054c91397f2fe05.jpg")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    for number, name in enumerate(PICTURES):
        Image.new("RGB", (40, 40), (50 * number, 9, 9)).save(place / name)
    return place


def asked(tmp_path, folder, content, questions=None):
    """Write annotations and return (question, answer) of all rows, with the reasons of those that are dropped."""
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    beside = None
    if questions is not None:
        (tmp_path / "questions.json").write_text(json.dumps(questions))
        beside = str(tmp_path / "questions.json")
    asset = read(tmp_path, ImageFolder(path=str(folder), captions=str(tmp_path / "annotations.json"), questions=beside))
    return [(row["question"], row["answer"]) for row in rows(asset)], list(dropped(asset).values())


@shape("VQAv2: annotations, questions beside them", "read", "JSON annotations")
def test_vqa_joins_its_questions_by_their_id(tmp_path, folder):
    answers = [{"answer": text, "answer_confidence": "yes", "answer_id": k} for k, text in enumerate(["red", "pink"])]
    annotation = {"question_id": 1, "image_id": 42, "multiple_choice_answer": "red", "answers": answers}
    found, reasons = asked(
        tmp_path, folder,
        {"annotations": [annotation, annotation | {"image_id": 43}, annotation | {"question_id": 2}], "info": {}},
        {"questions": [{"question_id": 1, "image_id": 42, "question": "What colour?"}], "task_type": "Open-Ended"},
    )  # fmt: skip
    assert found == [("What colour?", "red")]
    assert sorted(reasons) == ["no_such_file", "no_text"]


@shape("GQA: questions by id", "read", "JSON annotations")
def test_gqa_names_images_by_their_number(tmp_path, folder):
    content = {"0201": {"imageId": "2370799", "question": "Is it dark?", "answer": "yes", "fullAnswer": "Yes, it is."}}
    assert asked(tmp_path, folder, content) == ([("Is it dark?", "yes")], [])


@shape("TextVQA: ten answers, the most frequent counts", "read", "JSON annotations")
def test_of_several_answers_the_most_frequent_counts(tmp_path, folder):
    row = {
        "image_id": "0054c91397f2fe05",
        "question": "what brand?",
        "answers": ["nokia", "toshiba", "toshiba", "nokia"],
    }
    found, reasons = asked(tmp_path, folder, {"data": [row, {**row, "answers": []}], "dataset_name": "textvqa"})
    assert found == [("what brand?", "nokia")]
    assert reasons == ["no_text"]


@pytest.mark.parametrize(("content", "said"), [
    pytest.param("{", "no readable JSON", marks=shape("cut JSON", "refused", "JSON annotations")),
    pytest.param('{"a": 1}', "no file of questions and answers",
                 marks=shape("other JSON", "refused", "JSON annotations")),
])  # fmt: skip
def test_other_json_is_refused(tmp_path, folder, content, said):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        read(tmp_path, ImageFolder(path=str(folder), captions=str(tmp_path / "a.json")))


@shape("an id or a file name that several images have", "skipped", "JSON annotations")
def test_a_question_that_may_be_about_several_images_is_dropped(tmp_path, folder):
    for place in ("cats", "vg"):
        (folder / place).mkdir()
    Image.new("RGB", (40, 40), (9, 200, 9)).save(folder / "vg" / "42.jpg")
    (folder / "cats" / "2370799.jpg").write_bytes((folder / "2370799.jpg").read_bytes())
    said = {"question": "What colour?", "answer": "red"}
    found, reasons = asked(tmp_path, folder, [{**said, "image_id": 42}, {**said, "image_id": 2370799}])
    assert found == [("What colour?", "red")], "equal images are one"
    assert reasons == ["ambiguous_image"]


@pytest.mark.parametrize(("names", "record", "wanted"), [
    # ids: all of a name where they are texts, else the number at its end
    (["coco/COCO_val2014_000000000042.jpg", "vg/42.jpg"], {"image_id": 42}, "ambiguous_image"),
    (["2370799.jpg", "n2370799.jpg"], {"imageId": "2370799"}, "2370799.jpg"),
    (["cat_7.jpg", "dog_7.jpg"], {"image_id": 7}, "ambiguous_image"),
    (["cats/n7.jpg", "dogs/n7.jpg"], {"image_id": "n7"}, "ambiguous_image"),
    (["coco_000042.jpg"], {"image_id": "000042"}, "coco_000042.jpg"),
    (["coco_000042.jpg"], {"image": "42"}, "coco_000042.jpg"),
    (["coco_000.jpg"], {"image_id": 0}, "coco_000.jpg"),
    # files: by as much of their path as there is, never by a number
    (["other_0042.jpg"], {"file": "42.jpg"}, "no_such_file"),
    (["cats/1.jpg", "dogs/1.jpg"], {"file": "1.jpg"}, "ambiguous_image"),
    (["1.jpg", "dogs/1.jpg"], {"file": "1.jpg"}, "1.jpg"),
    (["cats/1.jpg", "dogs/1.jpg"], {"file": "dogs/1.jpg"}, "dogs/1.jpg"),
    (["all/cats/1.jpg", "all/dogs/1.jpg"], {"file": "dogs/1.jpg"}, "all/dogs/1.jpg"),
    (["cats/2.jpg", "dogs/1.jpg"], {"file": "cats/1.jpg"}, "no_such_file"),
    (["1.jpg"], {"file": "/data/cats/1.jpg"}, "1.jpg"),
    (["cats/1.jpg"], {"file": "cats/images/1.jpg"}, "cats/1.jpg"),
    (["cats/1.jpg", "dogs/1.png"], {"file": "1.jpg"}, "cats/1.jpg"),
    (["cats/1.jpg", "dogs/1.jpg"], {"file": "cats/1.png"}, "cats/1.jpg"),
    (["cats/1.jpg"], {"file": ""}, "no_such_file"),
])  # fmt: skip
def test_a_record_is_about_the_image_that_it_names_or_about_none(tmp_path, names, record, wanted):
    file = ListFile(tmp_path / "a.json", "a.json", "")
    file.path.write_text(json.dumps([{**record, "question": "What?", "answer": "a dog"}]))
    images = {name: ListFile(Path(name), name, name) for name in names}
    [row] = Annotations([file], images).rows(file, lambda done: None)
    assert (row.sha256 if isinstance(row, Row) else row.reason) == wanted


def test_questions_that_are_not_there_are_told(tmp_path, folder):
    (tmp_path / "a.json").write_text("[]")
    source = ImageFolder(path=str(folder), captions=str(tmp_path / "a.json"), questions=str(tmp_path / "b.json"))
    with pytest.raises(ValueError, match=r"source\.questions: there is no file"):
        source_files(source)


def test_real_annotations_about_an_image_of_that_name(tmp_path, folder):
    lists = shared_data("image_text") / "vqa_samples"
    path = lists / "pope_coco_on_our_images.json"
    listed = json.loads(path.read_text())
    Image.new("RGB", (40, 40), (9, 9, 200)).save(folder / listed[0]["file"])
    found = rows(read(tmp_path, ImageFolder(path=str(folder), captions=str(path))))
    assert {(row["question"], row["answer"]) for row in found} == {(one["question"], one["answer"]) for one in listed}


@shape("PixMo count and points: a question of the label", "read")
def test_a_question_may_be_made_of_columns(tmp_path):
    columns = Columns(url="url", answer="count", question_from="How many {label} are there?")
    found = table(tmp_path / "a.parquet", columns, label=["dogs", None], count=pa.array([0, 2]))
    assert (found[0]["question"], found[0]["answer"]) == ("How many dogs are there?", "0")
    assert found[1][0] == "no_text"


@pytest.mark.parametrize("columns", [
    {"question_from": "How many {label}?"}, {"question_from": "How many?", "answer": "count"},
    {"question_from": "How many {label}?", "question": "q", "answer": "count"}, {"answer": "count"},
])  # fmt: skip
def test_questions_and_answers_belong_together(columns):
    with pytest.raises(ValidationError):
        Columns.model_validate(columns)

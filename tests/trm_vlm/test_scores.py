"""Scores of answers, from values by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs.answering import AnswerEvaluation
from storage.question_set import Asked
from tasks.answering.evaluation import Answered, Majority, gain, gains_by_kind, scores_of
from tasks.answering.scores import exact_match, kind_of, normalised, numeric_match, token_f1
from tasks.retrieval import mean_average_precision, recall_at
from tasks.samples import scene_questions
from tasks.samples.scene_model import make_scene
from tasks.weather_questions.words import WORDS


def asked(answer: str, question: str = "What is it?", item: int = 0, templated: bool = False) -> Asked:
    return Asked("test", item, question, answer, templated, 0, "k", group=item)


@pytest.mark.parametrize(("text", "expected"), [
    ("The Cat!", "cat"), ("an  apple, a pear", "apple pear"), ("top-left", "topleft"), ("A", ""), ("U.S.", "us"),
    ("theatre", "theatre"), ("  THE   the ", ""),
])  # fmt: skip
def test_texts_are_normalised_in_squads_order(text, expected):
    assert normalised(text) == expected


def test_exact_match_and_f1():
    assert exact_match("The red star.", "red star")
    assert not exact_match("red", "red star")
    assert token_f1("the red red star", "red star big") == pytest.approx(2 * 2 / (3 + 3))
    assert token_f1("blue", "red") == 0
    assert token_f1("a", "the") == 1, "both say nothing"
    assert token_f1("", "red") == 0


def test_numbers_are_compared_as_numbers():
    assert exact_match("-5", "5"), "SQuAD's rules drop the sign"
    assert exact_match("3.5", "35"), "and the point"
    assert numeric_match("-5", "5") is False
    assert numeric_match("3.5", "35") is False
    assert numeric_match("minus 5", "5") is False
    assert numeric_match("minus 5", "-5.0") is True
    assert numeric_match("three", "3") is True
    assert numeric_match("1,200", "1200.0") is True
    for word in ("no", "none", "None.", "zero"):
        assert numeric_match(word, "0") is True
    assert numeric_match("no idea", "3") is False
    assert numeric_match("3 or 4", "3") is False
    assert numeric_match("3", "a star") is None


@pytest.mark.parametrize(("question", "answer", "kind"), [
    ("How many stars are there?", "3", "count"), ("Is there a red star?", "no", "yes_no"),
    ("What is the number of circles?", "2", "count"), ("Which colour does the star have?", "red", "colour"),
    ("Where in the image is the ring?", "top left", "position"), ("Which shape is red?", "star", "shape"),
    ("Which is higher up, the star or the ring?", "star", "relation"), ("What number can be read?", "7", "reading"),
    ("Does the wind at the centre rise or fall?", "rise", "trend"), ("Is the north windier?", "no", "yes_no"),
    ("What is the highest temperature, in degrees Celsius?", "5", "number"),
    ("Why?", "because", "other"),
])  # fmt: skip
def test_questions_have_a_kind(question, answer, kind):
    assert kind_of(question, answer) == kind


OF_SCENES = {
    "_how_many": ["count"], "_is_there": ["yes_no"], "_colour": ["colour"], "_shape": ["shape"],
    "_look": ["position", "pattern", "size"], "_relation": ["yes_no", "relation"],
    "_digit": ["reading", "colour", "yes_no"],
}  # fmt: skip
"""What each function of the generator asks for."""
OF_WEATHER = {"most": "position", "least": "position", "which": "relation", "trend": "trend", "count": "count"}


def test_every_question_about_scenes_is_of_the_kind_that_was_asked():
    assert OF_SCENES.keys() == {ask.__name__ for ask in scene_questions.KINDS}
    texts: set[str] = set()
    for index in range(400):
        scene, random = make_scene(0, index), np.random.default_rng(index)
        for ask in scene_questions.KINDS:
            if questions := ask(scene, random):
                assert [kind_of(one.question, one.answer) for one in questions] == OF_SCENES[ask.__name__], questions
                texts |= {one.question for one in questions}
    assert sum(text.startswith("Which shape is in the ") for text in texts) == 9, "every place was asked about"
    forms = (
        "How many", "What is the number of", "Is there", "Can you see", "Does the image show", "What colour are",
        "What colour is", "Which colour does", "Where", "Which is further", "Which is higher", "Which digit",
        "What number", "Is the number",
    )  # fmt: skip
    assert all(any(text.startswith(form) for text in texts) for form in forms)


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_every_form_of_a_question_about_weather_is_of_its_kind(words):
    told = {"a": "north", "b": "south", "level": "minus 3", "nearest": "5"}
    forms = {name: (kind, getattr(words, name)) for name, kind in OF_WEATHER.items()}
    forms |= {name: ("number", asked) for name, asked in words.numbers.items()}
    for kind, asked in forms.values():
        assert [kind_of(form.format(**told), "north") for form in asked] == [kind] * len(asked)
    for form in (*words.whether, *words.usual):
        assert kind_of(form.format(**told), "yes") == "yes_no"


def test_the_majority_answers_by_kind_and_from_training_alone():
    training = [asked(a, "How many?") for a in ("2", "2", "3")] + [asked(a, "Why?") for a in ("so", "as", "as", "as")]
    majority = Majority(training)
    assert majority.answer(asked("9", "How many?")) == "2"
    assert majority.answer(asked("9", "Why?")) == "as"
    assert majority.answer(asked("red", "Which colour?")) == "as", "of a kind that training lacks: the most frequent"


def test_scores_leave_templated_rows_out_of_exact_match():
    rows = [asked("3", "How many?"), asked("red star", item=1), asked("a long caption", item=2, templated=True)]
    scores = scores_of(Answered.of(rows, ["3", "red", "a long caption"]))
    assert scores["all"]["exact"] == 0.5
    assert scores["all"]["f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert (scores["all"]["numeric"], scores["all"]["numeric_questions"]) == (1, 1)
    assert scores_of(Answered.of(rows[2:], ["x"]))["all"]["exact"] is None


def test_the_interval_of_a_gain_draws_images_as_wholes():
    """Ten questions of one image are one draw: their interval is as wide as that of one question."""
    random = np.random.default_rng(0)
    of_image = random.random(40) < 0.5
    better, worse = of_image.astype(float), np.zeros(40)
    how = AnswerEvaluation(resamples=2000)
    single = gain(better, worse, [asked("x", item=k) for k in range(40)], how)
    tenfold = gain(np.repeat(better, 10), np.repeat(worse, 10), [asked("x", item=k // 10) for k in range(400)], how)
    assert tenfold == pytest.approx(single)
    deviation = of_image.std() / 40**0.5
    assert single["value"] == of_image.mean()
    assert single["high"] - single["low"] == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    assert gain(better, worse, [asked("x", item=k, templated=True) for k in range(40)], how) is None


def test_a_gain_at_a_kind_is_over_the_best_at_it_and_says_of_how_many_questions():
    """Three questions of each of three images: two counts, where the majority is better, and a colour."""
    rows = [
        asked(answer, question, item=image)
        for image in range(3)
        for question, answer in (("How many?", "2"), ("How many?", "3"), ("Which colour?", "red"))
    ]
    rows.append(asked("a caption", "How many?", item=3, templated=True))
    own = np.array([1, 1, 1, 1, 0, 1, 1, 1, 0, 1.0])
    blind = np.array([0, 0, 1, 0, 0, 0, 0, 1, 0, 1.0])
    majority = np.array([1, 0, 0, 1, 0, 0, 1, 0, 0, 1.0])
    found = gains_by_kind(own, {"blind": blind, "majority": majority}, rows, AnswerEvaluation(resamples=500))
    assert list(found) == ["colour", "count"]
    told = {
        kind: [table[name] for name in ("questions", "exact", "peer", "peer_exact")] for kind, table in found.items()
    }
    assert told == {
        "colour": [3, pytest.approx(2 / 3), "blind", pytest.approx(1 / 3)],
        "count": [6, pytest.approx(5 / 6), "majority", 0.5],
    }
    assert found["count"]["gain"]["value"] == pytest.approx(2 / 6)
    assert found["count"]["gain"]["low"] == 0, "the second image alone, drawn three times"
    assert found["count"]["gain"]["high"] == 0.5, "any but the second: one of two questions each"
    assert gains_by_kind(own[9:], {"blind": blind[9:]}, rows[9:], AnswerEvaluation()) == {}


def test_retrieval_counts_every_text_that_is_right_and_ties_against():
    images = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    texts = torch.nn.functional.normalize(images + 0.5 * torch.randn(6, 4), dim=-1)
    same = torch.tensor([0, 1, 0, 2, 3, 1])
    found = mean_average_precision(images @ texts.T, same)
    scores = (images @ texts.T).numpy()
    for name, matrix in (("text_map", scores), ("image_map", scores.T)):
        values = []
        for k, row in enumerate(matrix):
            right = (same == same[k]).numpy()[np.argsort(-row)]
            values.append(np.mean([right[: n + 1].mean() for n in np.flatnonzero(right)]))
        assert found[name] == pytest.approx(np.mean(values))
    ranked = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.3, 0.6, 0.5]])  # texts 1, 2, 2; images 1, 1, 1
    assert recall_at(ranked, (1, 2)) == {
        "text_at_1": pytest.approx(1 / 3), "text_at_2": 1, "image_at_1": 1, "image_at_2": 1, "chance_at_1": 1 / 3
    }  # fmt: skip
    assert recall_at(ranked.T.contiguous(), (1,))["image_at_1"] == pytest.approx(1 / 3)
    equal = torch.ones(5, 5)
    assert mean_average_precision(equal, torch.arange(5))["text_map"] == pytest.approx(1 / 5)
    assert recall_at(equal, (1,))["text_at_1"] == 0

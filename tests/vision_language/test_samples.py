"""Episodes: what is written, what is asked, and that the answer is never in front of the question."""

from __future__ import annotations

import torch

from configs.microvlm import Phrases
from tasks.text.tokens import FOLDER, Tokens
from tasks.vision_language.samples import Asking, VlmSample, collate, count_terms
from tests.once import only


def episode_samples(tokens: Tokens, count: int, episode: int, first: int = 0) -> list[VlmSample]:
    asking = Asking(tokens, Phrases(), episode, longest=32)
    return [
        VlmSample(torch.full((3, 8, 8), k, dtype=torch.uint8), "", f"text {k} about a star", first + k, k, asking)
        for k in range(count)
    ]


def test_every_question_is_about_an_image_that_was_written_and_its_answer_is_that_images_text(vlm):
    tokens = Tokens.load(only(vlm, "microvlm_language").folder / FOLDER)
    phrases, kinds = Phrases(), set()
    for first in range(0, 300, 10):
        batch = collate(episode_samples(tokens, 10, 4, first))
        assert batch.episodes == 2, "what fills no episode is left out"
        assert len(batch.images) == 8
        for number in range(2):
            step, seen = int(batch.asked[number]), int(batch.written[number].sum())
            assert batch.written[number, :seen].all()
            assert 2 <= seen <= 4
            assert step < seen
            ids = batch.recalled.tokens[number][batch.recalled.attended[number]].tolist()
            learned = batch.recalled.tokens[number][batch.recalled.learned[number]].tolist()
            assert tokens.text(learned) == f"text {4 * number + step} about a star"
            question = tokens.text(ids[: len(ids) - len(learned)])
            previous = seen - (2 if batch.shown[number] else 1)
            assert question == phrases.previous or f"image {step + 1} " in f"{question} ".replace("?", " ")
            if question == phrases.previous:
                assert step == previous
            assert not (batch.shown[number] and step == seen - 1), "the answer would stand in front of the question"
            beyond = batch.questions.tokens[2 + number][batch.questions.attended[2 + number]].tolist()
            asked = int("".join(c for c in tokens.text(beyond).split("image ")[1] if c.isdigit()))
            assert asked > seen
            kinds.add((question == phrases.previous, bool(batch.shown[number])))
    assert len(kinds) == 4, "all kinds of questions are asked"


def test_counts_are_what_terms_are_means_over(vlm):
    tokens = Tokens.load(only(vlm, "microvlm_language").folder / FOLDER)
    batch = collate(episode_samples(tokens, 8, 4))
    counts = count_terms(batch)
    assert counts["nll"] == batch.told.learned.sum()
    assert counts["scope"] == 8 + 2 * 2
    assert counts["distil"] == counts["nll"] + counts["recall"]

"""Episodes: what is written, what is asked, and that the answer is never in front of the question."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs.microvlm import MicroVlmConfig, Phrases
from storage.shard_index import ENTRY, first_of_each_image
from tasks.text.tokens import FOLDER, Tokens
from tasks.vision_language.objective import VlmObjective
from tasks.vision_language.samples import (
    Asking,
    EpisodePairs,
    VlmSample,
    collate,
    collate_pairs,
    count_terms,
)  # fmt: skip
from tests.once import only
from tests.vision_language.test_pipeline import of_stage
from tests.vision_language.tiny import CONFIG, FEW_BITS, stage


def episode_samples(tokens: Tokens, count: int, episode: int, first: int = 0) -> list[VlmSample]:
    asking = Asking(tokens, Phrases(), episode, longest=32, steps=16)
    return [
        VlmSample(torch.full((3, 8, 8), k, dtype=torch.uint8), "", f"text {k} about a star", first + k, k, asking)
        for k in range(count)
    ]


def test_every_question_is_about_an_image_that_was_written_and_its_answer_is_that_images_text(vlm):
    tokens = Tokens.load(only(vlm, "microvlm_language").folder / FOLDER)
    phrases, kinds, latest, cued, others = Phrases(), set(), set(), {}, set()
    for first in range(0, 2000, 10):
        batch = collate(episode_samples(tokens, 10, 4, first))
        assert batch.episodes == 2, "what fills no episode is left out"
        assert len(batch.images) == 8
        for number in range(2):
            before, seen = int(batch.first[number]), int(batch.written[number].sum())
            step = int(batch.asked[number]) - before
            assert batch.written[number, :seen].all()
            assert 1 <= seen <= 4
            assert 0 <= step < seen
            assert before + 4 <= 16, "no image takes the place of another"
            ids = batch.recalled.tokens[number][batch.recalled.attended[number]].tolist()
            learned = batch.recalled.tokens[number][batch.recalled.learned[number]].tolist()
            assert tokens.text(learned) == f"text {4 * number + step} about a star"
            question = tokens.text(ids[: len(ids) - len(learned)])
            previous = seen - (2 if batch.shown[number] else 1)
            assert question == phrases.previous or f"image {before + step + 1} " in f"{question} ".replace("?", " ")
            if question == phrases.previous:
                assert step == previous
            assert not (batch.shown[number] and step == seen - 1), "the answer would stand in front of the question"
            beyond = batch.questions.tokens[2 + number][batch.questions.attended[2 + number]].tolist()
            asked = int("".join(c for c in tokens.text(beyond).split("image ")[1] if c.isdigit()))
            assert asked > before + seen
            direct = batch.questions.tokens[4 + number][batch.questions.attended[4 + number]].tolist()
            others.add(tokens.text(direct))
            kinds.add((question == phrases.previous, bool(batch.shown[number])))
            latest.add(before + seen - 1)
            now = before + seen - int(batch.shown[number])
            assert cued.setdefault((question, now), before + step) == before + step, "one cue for two images"
    assert others == set(phrases.direct)
    assert len(kinds) == 4, "all kinds of questions are asked"
    assert latest == set(range(16)), "and after so many images as can be told apart"


def test_a_question_longer_than_texts_may_be_loses_its_beginning(vlm):
    tokens = Tokens.load(only(vlm, "microvlm_language").folder / FOLDER)
    asking = Asking(tokens, Phrases(), 4, longest=20, steps=16)
    question = " ".join(f"word {k}" for k in range(200)) + "?"
    ids, head = asking.encode(question, "a star")
    whole, told = tokens.encode(question, "a star", 20)
    assert (ids[0], head) == (tokens.begin, 21)
    assert ids[1:] == whole[told - 20 :]
    assert asking.encode("short?", "a star") == tokens.encode("short?", "a star", 20)


def test_counts_are_what_terms_are_means_over(vlm):
    tokens = Tokens.load(only(vlm, "microvlm_language").folder / FOLDER)
    batch = collate(episode_samples(tokens, 8, 4))
    counts = count_terms(batch)
    assert counts["nll"] == batch.told.learned.sum()
    assert counts["scope"] == 8 + 3 * 2
    assert counts["distil"] == counts["nll"] + counts["recall"]


class Questions:
    """Three texts of each image, one after another."""

    split, episode = "validation", 2

    def __init__(self, tokens: Tokens, images: int) -> None:
        self.entries = np.zeros(3 * images, ENTRY)
        self.entries["jpg_offset"] = 512 + np.arange(3 * images) // 3 * 4096
        self._tokens = tokens

    def first_texts(self):
        return first_of_each_image(self.entries)

    def sample(self, index: int, seed: int) -> VlmSample:
        (made,) = episode_samples(self._tokens, 1, self.episode)
        return VlmSample(torch.full((3, 8, 8), index // 3, dtype=torch.uint8), "", made.text, seed, index, made.asking)


def test_an_evaluation_sees_no_image_twice_and_every_episode_has_another_beside_it(vlm):
    tokens = Tokens.load(only(vlm, "microvlm_language").folder / FOLDER)
    for images in (4, 9, 23):
        pairs = EpisodePairs(Questions(tokens, images), most=12)
        batch = collate_pairs([pairs.sample(k, 5) for k in range(len(pairs))])
        assert batch.episodes % 2 == 0
        shown = batch.images[:, 0, 0, 0].tolist()
        assert len(shown) == len(set(shown)) == min(images, 12) // 4 * 4
    with pytest.raises(ValueError, match="the validation split has 3 images, too few for two episodes of 2"):
        EpisodePairs(Questions(tokens, 3), most=12)


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        ({"a": stage(language_layers=1, quantise=FEW_BITS, rates=("language",))}, "the last of several"),
        (
            {"a": stage(), "b": stage(language_layers=1, quantise=FEW_BITS, rates=("language",)), "c": stage()},
            "the last",
        ),
        ({"a": stage(language_layers=1, rates=("language",)), "b": stage(four_bit=True)}, "put it before"),
        ({"a": stage(vision=True, language_layers=3, rates=("vision", "language"))}, "the last 3 layers of .* has 2"),
        ({"a": stage(validation_samples=15, episode=8, batch_size=8)}, "two episodes of 8; give at least 16"),
    ],
)
def test_stages_that_cannot_be_are_refused(stages, why):
    with pytest.raises(ValueError, match=why):
        MicroVlmConfig.model_validate({**CONFIG, "vlm": {**CONFIG["vlm"], "stages": stages, "packed": {}}})


def test_what_would_end_after_a_long_training_is_refused_before():
    held = {
        "stages": {"a": stage(four_bit=True, vision=True, rates=("vision",))},
        "packed": {"small": {"stage": "a", "recipe": FEW_BITS}},
    }
    with pytest.raises(ValueError, match="stage a holds its language model in NF4, which is packed no further"):
        MicroVlmConfig.model_validate({**CONFIG, "vlm": CONFIG["vlm"] | held})
    with pytest.raises(ValueError, match="samples is 8, too few for two episodes of 5"):
        MicroVlmConfig.model_validate({**CONFIG, "evaluation": {"samples": 8, "episode": 5}})
    several = {"threads": 1, "ranks": 4}
    alone = {"stages": {"a": stage(vision=True, batch_size=8, rates=("vision",))}, "packed": {}}
    with pytest.raises(ValueError, match=r"must have two episodes \(4\) for each of the 4 ranks"):
        MicroVlmConfig.model_validate({**CONFIG, "vlm": CONFIG["vlm"] | alone, "execution": several})


@pytest.mark.parametrize("name", ["index", "evaluation"])
def test_names_that_a_report_has_for_something_else_are_refused(name):
    seeing = stage(vision=True, rates=("vision",))
    with pytest.raises(ValueError, match=f"{name} names something else in reports"):
        MicroVlmConfig.model_validate({**CONFIG, "vlm": CONFIG["vlm"] | {"stages": {name: seeing}, "packed": {}}})


def test_a_tower_that_begins_at_random_has_to_be_trained():
    with pytest.raises(ValueError, match="the vision tower begins at random and no stage trains it"):
        MicroVlmConfig.model_validate({**CONFIG, "vlm": CONFIG["vlm"] | {"stages": {"a": stage()}, "packed": {}}})


def test_a_language_model_that_begins_at_random_has_to_be_trained_as_a_whole():
    design = CONFIG["vlm"]["design"] | {"tokenizer": "a/b"}
    with pytest.raises(ValueError, match="the language model begins at random and stages train its last layers"):
        MicroVlmConfig.model_validate({**CONFIG, "vlm": CONFIG["vlm"] | {"text": None, "design": design}})


def test_what_becomes_too_coarse_has_to_be_trained(vlm):
    start = of_stage(vlm, "stage2").folder
    settings = stage(language_layers=1, quantise=FEW_BITS, rates=("language",))
    shards, index, language = (
        only(vlm, kind).folder for kind in ("image_text_shards", "image_text_index", "microvlm_language")
    )
    objective = VlmObjective(
        {"shards": shards, "index": index, "language": language, "start": start, "design": CONFIG["vlm"]["design"],
         "stage": settings}
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"7 layers ternary or int4 that this stage does not train, language\.hf"):
        objective.build()

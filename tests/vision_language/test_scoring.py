"""Likelihoods with controls: each is the likelihood of a batch in which the images are what the control says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from configs.vision_language import MicroVlmModelConfig
from models.build import build
from models.language.build import build_language_model
from models.vision_language.batch import Texts, VlmBatch
from models.vision_language.microvlm import MicroVLM
from tasks.vision_language.scoring import BatchScores, score_batch
from tests.vision_language.tiny import MODEL

STEPS, LENGTH, VOCABULARY = 4, 6, 50
WRITTEN = [1, 2, 4, 3, 3]
ASKED = [0, 1, 3, 0, 1]
EXCHANGED = [[1, 0, 2, 3], [1, 0, 2, 3], [3, 1, 2, 0], [1, 0, 2, 3], [0, 2, 1, 3]]
"""Images of each episode when the one that is asked about and the next one that was written have changed places."""
EPISODES = len(WRITTEN)
IMAGES = STEPS * EPISODES


def texts(count: int, learned: int) -> Texts:
    """Return texts of which so many tokens at the end are learned."""
    there = torch.ones(count, LENGTH, dtype=torch.bool)
    return Texts(torch.randint(VOCABULARY, (count, LENGTH)), there, there & (torch.arange(LENGTH) >= LENGTH - learned))


@pytest.fixture(scope="module")
def scored() -> tuple[MicroVLM, VlmBatch]:
    """A model with random weights, and five episodes whose questions are asked while no image is shown."""
    torch.manual_seed(0)
    config = MicroVlmModelConfig.model_validate(MODEL)
    model = build(config, build_language_model(config.language, VOCABULARY)).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    first = torch.tensor([0, 2, 1, 3, 0])
    return model, VlmBatch(
        images=torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8),
        told=texts(IMAGES, 3),
        prompts=texts(IMAGES, 0),
        captions=texts(IMAGES, 0),
        first=first,
        written=torch.arange(STEPS) < torch.tensor(WRITTEN)[:, None],
        recalled=texts(EPISODES, 2),
        questions=texts(3 * EPISODES, 0),
        asked=first + torch.tensor(ASKED),
        shown=torch.zeros(EPISODES, dtype=torch.bool),
    )


def score(model: MicroVLM, batch: VlmBatch) -> BatchScores:
    with torch.no_grad():
        return score_batch(model, batch)


def of(scored: tuple[MicroVLM, VlmBatch], name: str, images: list[int] | None = None) -> torch.Tensor:
    """Return a score, of a batch that has these of its images."""
    model, batch = scored
    return score(model, batch if images is None else replace(batch, images=batch.images[images])).sums[name]


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a - b).abs() > 1e-4).all())


def test_other_images_are_those_of_the_next_row_and_none_is_no_image(scored):
    following = [*range(1, IMAGES), 0]
    torch.testing.assert_close(of(scored, "nll_shuffled"), of(scored, "nll", following))
    torch.testing.assert_close(of(scored, "nll_blind"), of(scored, "nll_blind", following))
    assert differ(of(scored, "nll_blind"), of(scored, "nll"))
    assert differ(of(scored, "nll_shuffled"), of(scored, "nll"))


def test_another_memory_holds_another_episodes_images_at_the_steps_of_this_one(scored):
    others = [*range(STEPS, IMAGES), *range(STEPS)]
    torch.testing.assert_close(of(scored, "recall_other"), of(scored, "recall", others))
    assert differ(of(scored, "recall_other"), of(scored, "recall"))


def test_a_misplaced_image_has_changed_places_with_another_of_its_episode(scored):
    order = [STEPS * episode + image for episode, images in enumerate(EXCHANGED) for image in images]
    torch.testing.assert_close(of(scored, "recall_misplaced"), of(scored, "recall", order))
    assert differ(of(scored, "recall_misplaced"), of(scored, "recall"))


def test_without_a_memory_it_does_not_matter_what_was_seen(scored):
    torch.testing.assert_close(of(scored, "recall_without"), of(scored, "recall_without", [5] * IMAGES))
    assert differ(of(scored, "recall_without"), of(scored, "recall"))


def test_a_memory_is_asked_the_question_and_none_of_those_without_an_answer(scored):
    model, batch = scored
    own = of(scored, "recall")
    for rows, changes in ((slice(0, EPISODES), True), (slice(EPISODES, None), False)):
        tokens = batch.questions.tokens.clone()
        tokens[rows] = (tokens[rows] + 7) % VOCABULARY
        other = score(model, replace(batch, questions=replace(batch.questions, tokens=tokens))).sums["recall"]
        assert differ(other, own) if changes else torch.equal(other, own)


def test_a_question_is_scored_before_the_image_that_is_shown(scored):
    """The last one that was written stands before it, whatever the memory holds."""
    model, batch = scored
    shown = replace(batch, shown=torch.ones(EPISODES, dtype=torch.bool))
    without = score(model, shown).sums["recall_without"]
    changed = batch.images.clone()
    lasts = [STEPS * episode + seen - 1 for episode, seen in enumerate(WRITTEN)]
    changed[lasts] = 255 - changed[lasts]
    assert differ(without, score(model, replace(shown, images=changed)).sums["recall_without"])
    kept = batch.images.flip(0)
    kept[lasts] = batch.images[lasts]
    torch.testing.assert_close(without, score(model, replace(shown, images=kept)).sums["recall_without"])


def test_scores_say_what_they_are_to_be_divided_by(scored):
    assert of(scored, "tokens").tolist() == [3] * IMAGES
    assert of(scored, "recalled_tokens").tolist() == [2] * EPISODES
    assert of(scored, "scopes").tolist() == [2] * EPISODES
    assert of(scored, "questions").tolist() == [1] * EPISODES


@pytest.mark.parametrize(("gates", "right"), [
    ("+--", 2), ("++-", 1.5), ("+++", 1), ("---", 1), ("-+-", 0.5), ("-++", 0),
])  # fmt: skip
def test_a_gate_that_never_moves_is_right_for_half(scored, monkeypatch, gates, right):
    """Gates of the question, of one about an image that is not in the memory, and of one about what is shown."""
    model, batch = scored
    read = type(model.recall).read

    def gated(recall, queries, state):
        found = read(recall, queries, state)
        return replace(found, scope=torch.tensor([[1.0] * STEPS + [float(f"{sign}0.5") for sign in gates]] * EPISODES))

    monkeypatch.setattr(type(model.recall), "read", gated)
    assert score(model, batch).sums["scope_right"].tolist() == [right] * EPISODES


def test_a_cue_is_right_where_it_is_nearest_to_the_step_that_is_asked(scored, monkeypatch):
    model, batch = scored
    at_one = model.recall.when[1]
    monkeypatch.setattr(type(model.recall), "cues", lambda recall, features, now: at_one.expand(len(now), -1))
    asked = torch.tensor([1, 0, 8 + 1, 2, 8])
    later = replace(batch, asked=asked, first=asked)
    assert score(model, later).sums["cue_right"].tolist() == [True, False, True, False, False]


def test_images_and_texts_are_unit_vectors_of_their_rows(scored):
    model, batch = scored
    scores = score(model, batch)
    for vectors in (scores.images, scores.texts):
        assert vectors.shape == (IMAGES, 16)
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(IMAGES))
    reversed_ = score(model, replace(batch, images=batch.images.flip(0)))
    torch.testing.assert_close(reversed_.images, scores.images.flip(0))
    torch.testing.assert_close(reversed_.texts, scores.texts)


def test_two_episodes_are_enough_for_controls_and_one_is_not(scored):
    model, batch = scored
    two = replace(
        batch,
        images=batch.images[: 2 * STEPS],
        questions=Texts(*(part[: 3 * 2] for part in vars(batch.questions).values())),
        **{name: Texts(*(part[: 2 * STEPS] for part in vars(getattr(batch, name)).values()))
           for name in ("told", "prompts", "captions")},
        recalled=Texts(*(part[:2] for part in vars(batch.recalled).values())),
        **{name: getattr(batch, name)[:2] for name in ("first", "written", "asked", "shown")},
    )  # fmt: skip
    assert score(model, two).sums["recall_other"].shape == (2,)
    with pytest.raises(AssertionError, match="no other one for a control"):
        score(model, replace(batch, written=batch.written[:1]))

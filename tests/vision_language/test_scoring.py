"""Likelihoods with controls: each is the likelihood of a batch in which the images are what the control says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.vision_language.batch import VlmBatch
from models.vision_language.microvlm import MicroVLM
from storage.assets import AssetStore
from tasks.vision_language.released import VlmRelease
from tasks.vision_language.samples import Asking, VlmSamples, collate
from tasks.vision_language.scoring import score_batch
from tests.once import only

STEPS = 4
WRITTEN = [1, 2, 4, 3]
ASKED = [0, 1, 3, 0]
EXCHANGED = [[1, 0, 2, 3], [1, 0, 2, 3], [3, 1, 2, 0], [1, 0, 2, 3]]
"""Images of each episode when the one that is asked about and the next one that was written have changed places."""


@pytest.fixture(scope="module")
def scored(vlm: AssetStore) -> tuple[MicroVLM, VlmBatch]:
    """A model, and four episodes whose questions are asked while no image is shown."""
    release = VlmRelease.from_release(vlm.assets("microvlm_packed")[0].folder)
    asking = Asking(release.tokens, release.design.phrases, episode=STEPS, longest=24, steps=8)
    shards, index = (only(vlm, kind).folder for kind in ("image_text_shards", "image_text_index"))
    samples = VlmSamples(shards, index, "train", release.network.vision.square, asking)
    batch = collate([samples.sample(k, k) for k in range(STEPS * len(WRITTEN))])
    first = torch.tensor([0, 2, 1, 3])
    return release.network, replace(
        batch,
        first=first,
        asked=first + torch.tensor(ASKED),
        written=torch.arange(STEPS) < torch.tensor(WRITTEN)[:, None],
        shown=torch.zeros(len(WRITTEN), dtype=torch.bool),
    )


def recalled(model: MicroVLM, batch: VlmBatch, name: str = "recall") -> torch.Tensor:
    with torch.no_grad():
        return score_batch(model, batch).sums[name]


def with_images(batch: VlmBatch, order: list[int]) -> VlmBatch:
    return replace(batch, images=batch.images[order])


def test_another_memory_holds_another_episodes_images_at_the_steps_of_this_one(scored):
    model, batch = scored
    others = with_images(batch, [*range(STEPS, STEPS * len(WRITTEN)), *range(STEPS)])
    torch.testing.assert_close(recalled(model, batch, "recall_other"), recalled(model, others))
    assert ((recalled(model, batch, "recall_other") - recalled(model, batch)).abs() > 1e-4).all()


def test_a_misplaced_image_has_changed_places_with_another_of_its_episode(scored):
    model, batch = scored
    order = [STEPS * episode + image for episode, images in enumerate(EXCHANGED) for image in images]
    torch.testing.assert_close(recalled(model, batch, "recall_misplaced"), recalled(model, with_images(batch, order)))
    assert ((recalled(model, batch, "recall_misplaced") - recalled(model, batch)).abs() > 1e-4).all()


def test_without_a_memory_it_does_not_matter_what_was_seen(scored):
    model, batch = scored
    without = recalled(model, batch, "recall_without")
    torch.testing.assert_close(without, recalled(model, with_images(batch, [5] * len(batch.images)), "recall_without"))
    assert ((without - recalled(model, batch)).abs() > 1e-4).all()


def test_other_images_are_those_of_the_next_row_and_none_is_no_image(scored):
    model, batch = scored
    rows = len(batch.images)
    shuffled = with_images(batch, [*range(1, rows), 0])
    torch.testing.assert_close(recalled(model, batch, "nll_shuffled"), recalled(model, shuffled, "nll"))
    blind = recalled(model, batch, "nll_blind")
    torch.testing.assert_close(blind, recalled(model, shuffled, "nll_blind"))
    assert (blind - recalled(model, batch, "nll")).abs().max() > 1e-4

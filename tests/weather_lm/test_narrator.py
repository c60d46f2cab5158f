"""The loss on captions, what it leaves out, and that training sees to its own wiring."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.weather_lm import JoinConfig, LanguageRecipe, NarratorRecipe
from models.weather.narrator import NarrationBatch, Narrator
from tasks.captions.placed import load_placed, write_placed
from tasks.narration.dataset import collate
from tasks.narration.objective import NarratorObjective
from tasks.narration.released import NarratorRelease
from tests.once import only
from tests.weather_lm.tiny import CONFIG, folders


@pytest.fixture
def release(built) -> NarratorRelease:
    store, _ = built
    narrator = next(asset for asset in store.assets("weather_narrator"))
    return NarratorRelease.from_release(narrator.folder)


def objective_of(built, captions: Path | None = None, **recipe: Any) -> NarratorObjective:
    store, _ = built
    parts = folders(store)
    return NarratorObjective(
        {
            "store": parts.store,
            "training_set": parts.training_set,
            "captions": captions or parts.captions,
            "mae": only(store, "weather_mae").folder,
            "language": only(store, "weather_language").folder,
            "join": JoinConfig(min_day_share=1.0),
            "language_recipe": LanguageRecipe.model_validate(CONFIG["languages"]["small"]),
            "recipe": NarratorRecipe.model_validate(CONFIG["narrators"]["adapter"] | recipe),
        }
    )


@pytest.fixture
def batch(built) -> NarrationBatch:
    source = objective_of(built).source("train")
    return collate([source.sample(index, 0) for index in range(3)])


def likelihood_of(narrator: Narrator, batch: NarrationBatch, prompts: Tensor | None, row: int) -> float:
    """Return the nats of one caption, token by token, each from a sequence that ends before it."""
    tokens = batch.tokens[row][batch.attended[row]]
    first = int((~batch.learned[row][batch.attended[row]]).sum())
    total = 0.0
    for at in range(first, len(tokens)):
        embedded = narrator.language.embed_tokens(tokens[:at])[None]
        if prompts is not None:
            embedded = torch.cat([prompts[row][None], embedded], 1)
        total -= float(narrator.language(embedded)[0, -1].log_softmax(-1)[tokens[at]])
    return total


@torch.no_grad()
@pytest.mark.parametrize("blind", [False, True])
def test_the_loss_is_that_of_each_caption_token_given_all_before_it(release, batch, blind):
    assert len(set(batch.attended.sum(1).tolist())) > 1, "texts of different length, so there is padding"
    prompts = None if blind else release.network.soft_prompts(batch)
    found = release.network.caption_nll(batch, prompts)
    expected = [likelihood_of(release.network, batch, prompts, row) for row in range(len(batch))]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_neither_prompt_nor_padding_is_learned(release, batch):
    for row in range(len(batch)):
        text = release.tokens.text(batch.tokens[row][batch.learned[row]])
        head = release.tokens.text(batch.tokens[row][batch.attended[row] & ~batch.learned[row]])
        assert head.endswith(":"), head
        assert text, "the caption itself is learned"
        assert not (batch.learned[row] & ~batch.attended[row]).any()


@torch.no_grad()
def test_texts_do_not_depend_on_what_they_are_written_beside(release, batch):
    writing = {"max_new_tokens": 12, "temperature": 0.0, "top_p": 1.0, "end": release.tokens.end}
    together = release.network.write(batch, release.network.soft_prompts(batch), **writing)
    for row in range(len(batch)):
        alone = replace(batch, **{name: value[row : row + 1] for name, value in vars(batch).items()})
        assert release.network.write(alone, release.network.soft_prompts(alone), **writing) == [together[row]]


def test_the_encoder_neither_trains_nor_changes_its_mode(built, batch):
    model = objective_of(built).build()
    assert isinstance(model, Narrator)
    model.train()
    assert not any(module.training for module in model.encoder.modules())
    assert not any(module.training for module in model.language.modules())
    model(batch).sum().backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"adapter"}


def test_without_vision_only_place_and_time_are_seen(built, batch):
    sighted, blind = (objective_of(built, vision=vision).build() for vision in (True, False))
    assert isinstance(sighted, Narrator)
    assert isinstance(blind, Narrator)
    other = replace(batch, data=batch.data + 1)
    later = replace(batch, time=batch.time + 100 * 86400)
    assert torch.equal(blind.soft_prompts(batch), blind.soft_prompts(other))
    assert not torch.allclose(blind.soft_prompts(batch), blind.soft_prompts(later))
    assert not torch.allclose(sighted.soft_prompts(batch), sighted.soft_prompts(other))


def test_a_language_model_that_lets_no_gradient_through_is_refused(built, monkeypatch):
    monkeypatch.setattr(Narrator, "caption_nll", torch.no_grad()(Narrator.caption_nll))
    with pytest.raises(ValueError, match="no gradient of a caption's loss reaches the adapter"):
        objective_of(built).build()


def test_soft_prompts_that_leave_no_room_for_the_caption_are_refused(built):
    prefixer = {"tokens": 64, "heads": 2}
    with pytest.raises(ValueError, match=r"Keep LM.seq_len >= M \+ max_caption_len.* need 224 positions.* has 192"):
        objective_of(built, prefixer=prefixer).build()


def test_a_prompt_longer_than_its_room_is_refused(built):
    with pytest.raises(ValueError, match="max_prompt_tokens is 1; raise it"):
        objective_of(built, max_prompt_tokens=1).build()


def test_cut_captions_are_told_once_and_not_by_every_rank(built, capfd):
    objective = objective_of(built, max_caption_tokens=4)
    objective.build()
    remarks = [objective.remark(step, {"nll": 1.0}) for step in range(3)]
    assert remarks[0].endswith("captions have more than 4 tokens and are cut")
    assert remarks[1:] == ["", ""]
    assert not capfd.readouterr().out, "it is the loop that speaks, in rank 0 alone"


def test_a_loss_that_stays_at_a_uniform_guess_is_told(built):
    uniform = math.log(len(objective_of(built).tokens))
    sentence = f"after 100 steps, ln V is {uniform:.2f}: verify labels ignore prompts, adapter params in the optimizer"
    for nats, told in ((uniform, True), (uniform / 2, False)):
        objective = objective_of(built)
        remarks = [objective.remark(step, {"nll": nats}) for step in range(120)]
        assert [sentence in remark for remark in remarks] == [told and step == 100 for step in range(120)]


def test_windows_without_captions_end_in_what_there_is(built, tmp_path):
    captions = load_placed(folders(built[0]).captions)
    write_placed(tmp_path, [replace(c, date=c.date.replace(year=1999)) for c in captions])
    with pytest.raises(ValueError, match=r"No windows of train have a caption .*no window's anchor step lies on"):
        objective_of(built, captions=tmp_path)

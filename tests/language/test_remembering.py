"""Recurrent language models that keep what they have read write what they write when they read all of it anew."""

from __future__ import annotations

import pytest
import torch

from configs.language import HrmActV1Config
from configs.recursive import TrmConfig
from models.language.hrm_act_lm import HrmActLM
from models.language.interface import Recurrent
from models.language.trm_lm import TrmLM

TRM = {"hidden": 32, "heads": 2, "expansion": 2, "positions": 32, "inner_steps": 2, "supervision_steps": 3}
MODELS = {
    "trm": lambda: TrmLM(TrmConfig.model_validate({**TRM, "rounds": 2}), 37),
    "trm concatenated": lambda: TrmLM(TrmConfig.model_validate({**TRM, "mixing": "concatenated"}), 37),
    "hrm": lambda: HrmActLM(HrmActV1Config(hidden=32, heads=2, positions=32, h_layers=1, l_layers=2, max_steps=3), 37),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_was_read_is_not_read_again_and_nothing_changes(name, monkeypatch):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    with torch.no_grad():
        model.embedding_table.mul_(4)  # logits that prefer something
    prompts = torch.randn(3, 6, 32, dtype=torch.float64) * 0.2
    attended = torch.tensor([[1] * 6, [0] * 2 + [1] * 4, [0] + [1] * 5])
    lengths: list[int] = []
    block = model.last_block
    block.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))

    def written() -> tuple[list[list[int]], list[int]]:
        lengths.clear()
        drawn = torch.Generator().manual_seed(1)
        tokens = model.generate(
            prompts, attended, max_new_tokens=5, temperature=0.7, top_p=0.9, end=36, generator=drawn
        )
        return tokens, sorted(set(lengths))

    kept, read = written()
    assert len(read) == 2, "the prompt, then one token at a time"
    assert read[1] == 6 * read[0]
    memory, logits = None, []
    for embeds, until in ((prompts, 6), (model.embed_tokens(torch.tensor([[1], [2], [3]])), 7)):
        mask = torch.cat([attended, attended.new_ones(3, 1)], 1)[:, :until]
        with torch.no_grad():
            found, memory = model._next(embeds, mask, memory)
        logits.append(found)
    whole = torch.cat([prompts, model.embed_tokens(torch.tensor([[1], [2], [3]]))], 1)
    with torch.no_grad():
        expected = model(whole, mask)
    torch.testing.assert_close(logits[1], expected[:, -1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(logits[0], expected[:, -2], atol=1e-6, rtol=1e-6)
    monkeypatch.setattr(Recurrent, "ROOM", 4000)
    anew, read = written()
    assert len(read) > 2, "no room: all of it is read again"
    assert anew == kept

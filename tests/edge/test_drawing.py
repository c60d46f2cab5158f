"""Tokens that are drawn on a board, against those that torch draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.language.interface import _choose
from tasks.edge.drawing import DRAWN_FROM, choose


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_from_what_torch_draws_from(temperature):
    logits = np.random.default_rng(0).normal(0, 2, 30).astype(np.float32)
    random, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
    ours = np.bincount([choose(logits, temperature, random) for _ in range(4000)], minlength=30)
    rows = torch.from_numpy(logits).expand(4000, -1)
    theirs = np.bincount(_choose(rows, temperature, DRAWN_FROM, generator), minlength=30)
    assert ((ours == 0) == (theirs == 0)).all(), "the unlikely ones are never drawn"
    assert abs(ours - theirs).max() < 200


def test_without_a_temperature_the_likeliest_is_taken():
    assert choose(np.array([0.0, 3.0, 1.0], np.float32), 0.0, np.random.default_rng(0)) == 1

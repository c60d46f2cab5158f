"""The engine's episodic memory: its formulae against plain ones, and against torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from models.vision_language.gaussian_memory import GaussianMemory
from tasks.edge.memory import EpisodicMemory, matrix
from tasks.quantise.edge_folder import write_edge_memory

SLOTS, WIDTH, STEPS, NOISE = 24, 64, 8, 0.05


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "prior_mean": rng.normal(size=(SLOTS, WIDTH)).astype(np.float32) / WIDTH**0.5,
        "prior_variance": rng.uniform(0.5, 2, SLOTS).astype(np.float32),
        "when": units(STEPS, 2).astype(np.float32),
    }


def units(count: int, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, WIDTH))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_when_something_was_seen_brings_back_what_it_was():
    memory, contents = EpisodicMemory(tensors(), NOISE), units(6)
    for content in contents:
        memory.write(content)
    assert memory.seen == memory.number == 6
    for number in range(6):
        found = memory.complete(tensors()["when"][number] / 2**0.5)
        assert (contents @ found).argmax() == number
    memory.reset()
    assert memory.seen == 0
    assert np.linalg.norm(memory.complete(contents[0])) < 0.3


def test_a_write_is_the_posterior_of_a_gaussian():
    memory = EpisodicMemory(tensors(), NOISE)
    (content,) = units(1)
    code = (content + tensors()["when"][0]) / 2**0.5
    prior, precision = memory.mean.copy(), np.linalg.inv(memory.covariance)
    address = np.linalg.inv(prior @ prior.T + NOISE**2 * np.eye(SLOTS)) @ prior @ code
    memory.write(content)
    covariance = np.linalg.inv(precision + np.outer(address, address) / NOISE**2)
    np.testing.assert_allclose(memory.covariance, covariance, atol=1e-9)
    expected = covariance @ (precision @ prior + np.outer(address, code) / NOISE**2)
    np.testing.assert_allclose(memory.mean, expected, atol=1e-9)


def test_it_agrees_with_torch():
    values = {name: torch.from_numpy(value) for name, value in tensors().items()}
    theirs = GaussianMemory(SLOTS, WIDTH, NOISE)
    theirs.slots.weight.data, theirs.prior_logvar.data = values["prior_mean"], values["prior_variance"].log()
    ours, state = EpisodicMemory(tensors(), NOISE), theirs.prior()
    for number, content in enumerate(units(STEPS + 2)):
        when = values["when"][number % STEPS]
        if number >= STEPS:
            state = theirs.forget(theirs.complete(when[None, None] / 2**0.5, state)[1], state)
        code = (torch.from_numpy(content).float() + when) / 2**0.5
        state = theirs.write(code[None, None], state=state)
        ours.write(content)
        cue = torch.from_numpy(content).float()
        np.testing.assert_allclose(
            ours.complete(content), theirs.complete(cue[None, None], state)[1][0, 0].detach().numpy(), atol=1e-3
        )
    np.testing.assert_allclose(ours.covariance, state.covariance[0].detach().numpy(), atol=1e-4)


def test_the_next_image_takes_the_place_of_the_oldest():
    memory, contents = EpisodicMemory(tensors(), NOISE), units(3 * STEPS)
    for number, content in enumerate(contents):
        memory.write(content)
        assert memory.number == number % STEPS + 1, "numbers begin again as well"
        for place in range(max(0, number + 1 - STEPS), number + 1):
            when = tensors()["when"][place % STEPS]
            found = memory.complete(when / 2**0.5)
            assert (contents @ (found - (found @ when) * when)).argmax() == place


def test_the_state_lives_in_a_file(tmp_path):
    memory, path = EpisodicMemory(tensors(), NOISE), tmp_path / "state.safetensors"
    for content in units(5):
        memory.write(content)
    memory.save(path, "one")
    other = EpisodicMemory(tensors(), NOISE)
    other.load(path, "one")
    assert other.seen == 5
    for content in units(5):
        np.testing.assert_allclose(other.complete(content), memory.complete(content), atol=1e-4)
    assert [found.name for found in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_state_that_is_none_of_its_own_is_refused(tmp_path):
    memory = EpisodicMemory(tensors(), NOISE)
    (tmp_path / "text").write_text("nothing")
    other = {
        "mean": np.zeros((1, 3, 4), np.float32),
        "covariance": np.zeros((1, 3, 3), np.float32),
        "seen": np.array(1),
    }
    save_file(other, tmp_path / "other", metadata={"model": "one"})
    for name, message in (("text", "as a memory"), ("absent", "as a memory"), ("other", "memory of one, not of one")):
        with pytest.raises(ValueError, match=message):
            memory.load(tmp_path / name, "one")


def test_integers_stand_for_its_matrices(tmp_path):
    path = tmp_path / "memory.safetensors"
    write_edge_memory(path, tensors())
    kept = load_file(path)
    assert kept["prior_mean"].dtype == np.int8
    for name, value in tensors().items():
        step = kept[f"{name}_scales"].max() if value.ndim == 2 else 0
        np.testing.assert_allclose(matrix(kept, name), value, atol=0.51 * step + 1e-7)
    memory, contents = EpisodicMemory(kept, NOISE), units(6)
    for content in contents:
        memory.write(content)
    for number in range(6):
        assert (contents @ memory.complete(tensors()["when"][number] / 2**0.5)).argmax() == number

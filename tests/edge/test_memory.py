"""The engine's episodic memory: its formulae against plain ones, and against torch's."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tasks.edge.memory import EpisodicMemory, matrix
from tasks.quantise.edge_folder import write_edge_memory

SLOTS, WIDTH, HIDDEN, VECTORS, NOISE = 12, 16, 8, 2, 0.05


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "prior_mean": (SLOTS, WIDTH), "vectors.weight": (VECTORS * WIDTH, WIDTH), "vectors.bias": (VECTORS * WIDTH,),
        "scope.query.weight": (HIDDEN, WIDTH), "scope.query.bias": (HIDDEN,),
        "scope.statistics.weight": (HIDDEN, 3), "scope.statistics.bias": (HIDDEN,),
        "scope.layers.1.weight": (HIDDEN, HIDDEN), "scope.layers.1.bias": (HIDDEN,),
        "scope.layers.3.weight": (1, HIDDEN), "scope.layers.3.bias": (1,),
    }  # fmt: skip
    drawn = {name: rng.normal(size=shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    return drawn | {"prior_variance": rng.uniform(0.5, 2, SLOTS).astype(np.float32)}


def codes(count: int) -> np.ndarray:
    drawn = np.random.default_rng(1).normal(size=(count, WIDTH))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_what_was_written_is_read():
    memory = EpisodicMemory(tensors(), NOISE)
    stored = codes(8)
    before = [np.linalg.norm(memory.read(code) - code) for code in stored]
    for code in stored:
        memory.write(code)
    after = [np.linalg.norm(memory.read(code) - code) for code in stored]
    assert max(after) < 0.05 < min(before)
    memory.reset()
    assert [np.linalg.norm(memory.read(code) - code) for code in stored] == before


def test_a_write_is_the_posterior_of_a_gaussian():
    memory = EpisodicMemory(tensors(), NOISE)
    (code,) = codes(1)
    prior, precision = memory.mean.copy(), np.linalg.inv(memory.covariance)
    address = np.linalg.inv(prior @ prior.T + NOISE**2 * np.eye(SLOTS)) @ prior @ code
    memory.write(code)
    covariance = np.linalg.inv(precision + np.outer(address, address) / NOISE**2)
    np.testing.assert_allclose(memory.covariance, covariance, atol=1e-9)
    expected = covariance @ (precision @ prior + np.outer(address, code) / NOISE**2)
    np.testing.assert_allclose(memory.mean, expected, atol=1e-9)


def test_it_agrees_with_torch():
    torch = pytest.importorskip("torch")
    torch_memory = pytest.importorskip("models.vision_language.gaussian_memory")
    from models.vision_language.scope import ScopeNet

    values = {name: torch.from_numpy(value) for name, value in tensors().items()}
    theirs, scope = torch_memory.GaussianMemory(SLOTS, WIDTH, NOISE), ScopeNet(WIDTH, HIDDEN)
    theirs.load_state_dict(
        {"prior_mean": values["prior_mean"], "prior_logvar": values["prior_variance"].log()}, strict=False
    )
    scope.load_state_dict({n.removeprefix("scope."): v for n, v in values.items() if n.startswith("scope.")})
    ours, state = EpisodicMemory(tensors(), NOISE), theirs.prior()
    for code in codes(6):
        z = torch.from_numpy(code).float()[None]
        state = theirs.update(z, state)
        ours.write(code)
        reading = theirs.read(z[None], state)
        np.testing.assert_allclose(ours.read(code), reading[0, 0].detach().numpy(), atol=1e-4)
        probability = scope(z[None], reading).sigmoid().item()
        assert ours.scope(code, ours.read(code)) == pytest.approx(probability, abs=1e-4)
    np.testing.assert_allclose(ours.covariance, state.covariance[0].detach().numpy(), atol=1e-4)


def test_the_state_lives_in_a_file(tmp_path):
    memory, path = EpisodicMemory(tensors(), NOISE), tmp_path / "state.safetensors"
    for code in codes(5):
        memory.write(code)
    memory.save(path)
    other = EpisodicMemory(tensors(), NOISE)
    other.load(path)
    for code in codes(5):
        np.testing.assert_allclose(other.read(code), memory.read(code), atol=1e-5)
    assert {name: value.shape for name, value in load_file(path).items()} == {
        "mean": (1, SLOTS, WIDTH), "covariance": (1, SLOTS, SLOTS)}  # fmt: skip
    assert [found.name for found in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_state_that_is_none_of_its_own_is_refused(tmp_path):
    memory = EpisodicMemory(tensors(), NOISE)
    (tmp_path / "text").write_text("nothing")
    save_file({"mean": np.zeros((1, 3, 4), np.float32), "covariance": np.zeros((1, 3, 3), np.float32)}, tmp_path / "o")
    for name, message in (("text", "holds no memory"), ("absent", "holds no memory"), ("o", "another file")):
        with pytest.raises(ValueError, match=message):
            memory.load(tmp_path / name)


def test_vectors_are_gated_by_what_it_knows():
    memory = EpisodicMemory(tensors(), NOISE)
    (code,) = codes(1)
    reading = memory.read(code)
    weight, bias = tensors()["vectors.weight"], tensors()["vectors.bias"]
    gate = memory.scope(code, reading)
    assert 0 < gate < 1
    np.testing.assert_allclose(
        memory.recall(code, WIDTH), gate * (weight @ reading + bias).reshape(VECTORS, WIDTH), atol=1e-6
    )


def test_integers_stand_for_its_matrices(tmp_path):
    path = tmp_path / "memory.safetensors"
    write_edge_memory(path, tensors())
    kept = load_file(path)
    assert kept["prior_mean"].dtype == np.int8
    for name, value in tensors().items():
        step = kept[f"{name}_scales"].max() if value.ndim == 2 else 0
        np.testing.assert_allclose(matrix(kept, name), value, atol=0.51 * step + 1e-7)
    exact, rounded = EpisodicMemory(tensors(), NOISE), EpisodicMemory(kept, NOISE)
    for code in codes(6):
        exact.write(code)
        rounded.write(code)
    (first,) = codes(1)
    np.testing.assert_allclose(rounded.read(first), exact.read(first), atol=0.02)

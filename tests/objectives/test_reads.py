"""A training that never waits for its GPU: no step reads a value back, whatever it trains."""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.objectives.cases import CASES, Data
from tests.objectives.test_steps import trainer_of

READING_METHODS = {
    Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__bool__, Tensor.__int__, Tensor.__float__,
    Tensor.__index__, Tensor.__array__, torch.equal, Tensor.equal, torch.allclose, Tensor.allclose,
}  # fmt: skip
"""What gives Python a tensor's values; `cpu` does nothing on a CPU and would wait on a GPU."""
READING_OPERATIONS = {
    "aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::nonzero", "aten::nonzero_numpy",
    "aten::masked_select", "aten::unique_dim", "aten::_unique2", "aten::unique_consecutive", "aten::bincount",
    "aten::repeat_interleave.Tensor",
}  # fmt: skip
"""What reads on its own account, because the shape of its result depends on values."""


class Reads:
    """Counts reads while it is entered, by name and the line of the project that asks for them."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._modes = (_Methods(self.found), _Operations(self.found))

    def __enter__(self) -> Counter[str]:
        for mode in self._modes:
            mode.__enter__()
        return self.found

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Methods(TorchFunctionMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READING_METHODS:
            self._found[f"{getattr(func, '__name__', func)} in {_line()}"] += 1
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        by_mask = name.startswith(("aten::index", "aten::_index_put")) and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if name in READING_OPERATIONS or by_mask:
            self._found[f"{name} in {_line()}"] += 1
        return func(*args, **(kwargs or {}))


def _line() -> str:
    """Return where the read is: the innermost line that is neither torch's nor this file's."""
    frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename and f.filename != __file__]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr("models.reads.FREE_ON", frozenset())


@pytest.mark.parametrize("name", CASES)
def test_a_step_in_the_steady_state_reads_nothing_back(name, data: Data, tmp_path, as_on_a_gpu):
    case = CASES[name]
    settings = case.settings(epochs=4, history_every=100)
    one = trainer_of(case.objective(data), settings, torch.device("cpu"), tmp_path)
    one.model.train()
    first, second = one.batches(0, 2)
    one.step(first)  # what is done once is done
    with Reads() as found:
        one.step(second)
    assert not found


@pytest.mark.parametrize("name", CASES)
def test_what_is_done_without_reading_comes_to_the_same(name, data: Data, tmp_path, monkeypatch):
    case = CASES[name]
    one = trainer_of(case.objective(data), case.settings(), torch.device("cpu"), tmp_path)
    one.model.eval()
    (micro, *_) = next(one.batches(0, 1))
    found = []
    for free_on in (frozenset({"cpu"}), frozenset()):
        monkeypatch.setattr("models.reads.FREE_ON", free_on)
        one.model.zero_grad()
        one.objective.load_state_dict({})
        losses = one.objective.losses(one.model, micro.batch)
        torch.stack(list(losses.values())).sum().backward()
        gradients = {n: p.grad.clone() for n, p in one.model.named_parameters() if p.grad is not None}
        found.append((losses, gradients))
    (losses, gradients), (other_losses, other_gradients) = found
    for term, loss in losses.items():
        torch.testing.assert_close(other_losses[term], loss, rtol=1e-5, atol=1e-6)
    scale = max(float(g.abs().max()) for g in gradients.values())
    for n, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[n], gradient, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("read", [
    lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: bool((x > 0).any()), lambda x: x[x > 0],
    lambda x: x.cpu(), lambda x: (x > 0).nonzero(), lambda x: float(x.max()), lambda x: x.numpy(),
    lambda x: torch.equal(x, x),
])  # fmt: skip
def test_every_kind_of_read_is_seen(read):
    x = torch.ones(3)
    with Reads() as found:
        x * 2 + torch.where(x > 0, x, 0.0).sum()
        assert not found
        read(x)
    assert found

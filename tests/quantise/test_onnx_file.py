"""Modules of torch as ONNX files with 8-bit weights."""

from __future__ import annotations

import logging
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from tasks.quantise import onnx_file
from tasks.quantise.onnx_file import write_onnx


class Pooling(nn.Module):
    """Linear layers, and queries that attend, whose projection torch keeps as one matrix that it cuts up."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.attention = nn.Linear(192, 256), nn.MultiheadAttention(256, 4, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, 5, 256))

    def forward(self, values):
        tokens = nn.functional.gelu(self.project(values.float() / 64 - 2))
        return self.attention(self.queries, tokens, tokens)[0], tokens.mean(1)


@pytest.mark.long
def test_a_module_computes_nearly_the_same_from_8_bit_weights(tmp_path):
    import onnx
    from onnxruntime import InferenceSession

    torch.manual_seed(0)
    module, path = Pooling().eval(), tmp_path / "module.onnx"
    values = torch.randint(0, 256, (1, 30, 192), dtype=torch.uint8)
    write_onnx(path, module, {"values": values}, ["pooled", "mean"])
    found = InferenceSession(path).run(["pooled", "mean"], {"values": values.numpy()})
    with torch.no_grad():
        expected = [output.numpy() for output in module(values)]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)
    kept = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 2}
    assert kept == {onnx.TensorProto.UINT8}
    assert [file.name for file in tmp_path.iterdir()] == ["module.onnx"]


def test_what_is_logged_and_warned_of_is_as_before_though_two_threads_export_at_once():
    """What is set is the same for all threads: the one that ends last would put the other's settings back."""
    inside, left, before = threading.Event(), threading.Event(), (logging.root.manager.disable, [*warnings.filters])

    def second() -> None:
        with onnx_file._quietly():
            inside.set()
            assert left.wait(60)

    with onnx_file._quietly():
        other = threading.Thread(target=second)
        other.start()
        inside.wait(0.3)  # in vain where one waits for the other
    left.set()
    other.join()
    assert (logging.root.manager.disable, warnings.filters) == before

"""Modules of torch as ONNX files for ONNX Runtime, their matrices of weights as 8-bit integers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from storage.files import atomic_path

OPERATORS = ("MatMul", "Gemm")
"""What is computed with integers: their weights are most of a transformer, and nearly all of its time."""


def write_onnx(path: Path, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> None:
    """Write what a module computes of inputs of these shapes, with 8-bit weights (one scale for each output).

    Activations become integers while it runs, with scales of what they are then ("dynamic quantisation"). Integers have
    no sign: products of signed ones saturate on x86 processors without VNNI, which costs a quarter of the outputs.

    Args:
        path: the file.
        module: in evaluation mode; it takes the inputs in their order.
        inputs: examples by name; their shapes and dtypes are those of the file.
        outputs: names of the tensors that the module returns.

    Raises:
        ValueError: the packages that write ONNX are not installed.
    """
    try:
        import onnxscript  # noqa: F401  (torch asks for it later, in words of its own)
        from onnxruntime import quantization
    except ImportError as error:
        raise ValueError(f"{error.name} is needed to write ONNX files; pip install 'millrace[edge]'") from error
    assert not module.training, "a module is exported as it evaluates"
    with atomic_path(path) as partial, tempfile.TemporaryDirectory(dir=path.parent) as work, _quietly():
        plain, folded = Path(work) / "float.onnx", Path(work) / "folded.onnx"
        with torch.no_grad():
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                plain,
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                external_data=False,
                verbose=False,
            )
        quantization.quant_pre_process(plain, folded, skip_symbolic_shape=True)  # weights that are cut up are computed
        quantization.quantize_dynamic(
            folded,
            partial,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            weight_type=quantization.QuantType.QUInt8,
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what exporters say about their steps from the logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

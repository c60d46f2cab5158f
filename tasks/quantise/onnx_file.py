"""Modules of torch as ONNX files for ONNX Runtime, in floats and in 8-bit integers."""

from __future__ import annotations

import logging
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from storage.files import atomic_path

MATRICES = ("MatMul", "Gemm")
"""What is computed with integers where activations become integers as they come: nearly all of a transformer's time."""
CONVOLUTIONS = ("Conv", *MATRICES)
"""What is computed with integers where the range of activations was looked at before."""
_one_at_a_time = threading.Lock()


def write_onnx(path: Path, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> None:
    """Write what a module computes of inputs of these shapes, products of matrices in 8 bits: `quantise_matrices`.

    Args:
        path: the file.
        module: in evaluation mode; it takes the inputs in their order.
        inputs: examples by name; their shapes and dtypes are those of the file.
        outputs: names of the tensors that the module returns.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        plain = Path(work) / "float.onnx"
        write_float_onnx(plain, module, inputs, outputs)
        quantise_matrices(plain, path)


def write_float_onnx(
    path: Path,
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    variable: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write what a module computes, in floats; what depends on weights alone is computed once.

    Args:
        path: the file.
        module: in evaluation mode; it takes the inputs in their order.
        inputs: examples by name.
        outputs: names of the tensors that the module returns.
        variable: axes whose length may be another than in the examples, by input.
    """
    from onnxruntime import quantization

    assert not module.training, "a module is exported as it evaluates"
    with atomic_path(path) as partial, tempfile.TemporaryDirectory(dir=path.parent) as work, _quietly():
        raw = Path(work) / "raw.onnx"
        shapes = tuple(dict.fromkeys((variable or {}).get(name, ()), torch.export.Dim.AUTO) or None for name in inputs)
        with torch.no_grad():
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                raw,
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes if variable else None,
                optimize=not variable,  # onnxscript 0.7 cannot fold the split of an axis whose length it does not know
                external_data=False,
                verbose=False,
            )
        quantization.quant_pre_process(raw, partial, skip_symbolic_shape=True)


def quantise_matrices(path: Path, target: Path) -> None:
    """Turn a file in floats into one whose products of matrices are of 8-bit integers, a scale for each output.

    Activations become integers while it runs, with scales of what they are then ("dynamic quantisation"). Integers have
    no sign: products of signed ones saturate on x86 processors without VNNI, which costs a quarter of the outputs.
    """
    from onnxruntime import quantization

    with atomic_path(target) as partial, _quietly():
        quantization.quantize_dynamic(
            path,
            partial,
            op_types_to_quantize=list(MATRICES),
            per_channel=True,
            weight_type=quantization.QuantType.QUInt8,
        )


def quantise_onnx(path: Path, target: Path, examples: Iterable[Mapping[str, Tensor]]) -> None:
    """Turn a file in floats into one whose convolutions and products of matrices are of 8-bit integers.

    The range of every activation is that which it takes for examples of the inputs ("static quantisation"); weights
    have a scale for each output.
    """
    from onnxruntime import quantization

    class Examples(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(examples)

        def get_next(self) -> Mapping[str, Any] | None:
            found = next(self._left, None)
            return None if found is None else {name: value.numpy() for name, value in found.items()}

    with atomic_path(target) as partial, _quietly():
        quantization.quantize_static(
            path,
            partial,
            Examples(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(CONVOLUTIONS),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what exporters say about their steps from the logs, of one thread at a time: what is logged, and what is
    warned of, is the same for all.
    """
    with _one_at_a_time:
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(before)

"""Packed models for engines without torch: their integers as arrays, and the same model with plain layers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from models.grids import GROUP
from models.packed import (
    BYTES,
    NIBBLES,
    PackedEmbedding,
    PackedInt8Linear,
    PackedLinear,
    PackedRowLinear,
    PackedRows,
    decode,
)
from models.ternary import Quantised, replace_layers
from tasks.quantise.decoder import Codes, Decoder, Weight


def decoder_of(model: PreTrainedModel) -> Decoder:
    """Return a packed or an exact decoder of transformers as arrays.

    `ValueError` for another architecture than Qwen2's or Llama's, for one that trains quantised, and one in NF4.
    """
    model.config.tie_word_embeddings = _is_tied(model)
    weights: dict[str, Weight] = {}
    for name, module in model.named_modules():
        if isinstance(module, Quantised):
            raise ValueError("this model trains quantised, its weights are not packed yet; name its packed model")
        if type(module).__name__ == "Linear4bit":  # of bitsandbytes, which need not be here
            raise ValueError(
                "this model holds its decoder in NF4, which engines without torch do not read; train the stage with "
                "four_bit false, or take a later one"
            )
        if isinstance(module, PackedLinear):
            weights[f"{name}.weight"] = linear_codes(module)
        elif isinstance(module, PackedEmbedding | PackedRowLinear):
            weights[f"{name}.weight"] = row_codes(module.rows)
        bias = getattr(module, "bias", None)
        if isinstance(module, PackedLinear | PackedRowLinear) and bias is not None:
            weights[f"{name}.bias"] = bias.detach().float().numpy()
    exact = {name: value.detach().float().numpy() for name, value in model.named_parameters()}
    return Decoder.of(model.config.to_dict(), exact | weights)


def _is_tied(model: Any) -> bool:
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(table, PackedEmbedding):
        return isinstance(head, PackedRowLinear) and head.rows is table.rows
    return getattr(head, "weight", None) is table.weight


def linear_codes(layer: PackedLinear) -> Codes:
    """Return the integers of a packed linear layer."""
    codes = decode(layer.codes, layer.digits, layer.in_features).numpy().astype(np.int8)
    scales = layer.scale.detach().float().numpy().reshape(-1, 1)
    return Codes(codes, scales, 8 if isinstance(layer, PackedInt8Linear) else 1.58)


def row_codes(rows: PackedRows) -> Codes:
    """Return the integers of packed rows."""
    codes = decode(rows.codes, rows.digits, rows.columns).numpy().astype(np.int8)
    if rows.scale.shape[1] > 1 and rows.columns % GROUP:
        raise ValueError(
            f"{rows.columns} columns are no whole groups of {GROUP}, which engines without torch need; choose int8"
        )
    bits = {NIBBLES: 4, BYTES: 8}.get(rows.digits, 1.58)
    return Codes(codes, rows.scale.float().numpy(), bits)


def unpacked(module: nn.Module) -> nn.Module:
    """Return a copy of a packed module with ordinary linear layers of the same weights."""
    plain = copy.deepcopy(module)
    packed = [layer for layer in plain.modules() if isinstance(layer, PackedLinear | PackedRowLinear)]
    replace_layers(plain, {layer: _plain(layer) for layer in packed})
    return plain.eval().requires_grad_(False)


def _plain(layer: PackedLinear | PackedRowLinear) -> nn.Linear:
    linear = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    if isinstance(layer, PackedRowLinear):
        linear.weight.data = layer.rows.take(slice(None))
    else:
        linear.weight.data = decode(layer.codes, layer.digits, layer.in_features) * layer.scale.reshape(-1, 1)
    if layer.bias is not None:
        linear.bias.data = layer.bias.detach().clone()
    return linear

"""Decoders of language models as arrays: what is written into files for engines without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Codes:
    """A matrix (outputs, inputs) of integers times scales."""

    codes: NDArray[np.int8]
    """(outputs, inputs); in {-1, 0, 1} when `bits` is 1.58, in [-8, 7] when it is 4."""
    scales: Floats
    """One for all, (1, 1); one for each row, (outputs, 1); or one for each equal group of a row, (outputs, groups)."""
    bits: float
    """1.58, 4 or 8."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        return self.codes.shape

    def values(self) -> NDArray[np.float32]:
        """Return the matrix that the integers stand for."""
        outputs, inputs = self.codes.shape
        groups = self.scales.shape[1]
        grouped = self.codes.reshape(outputs, groups, inputs // groups) * self.scales[..., None].astype(np.float32)
        return grouped.reshape(outputs, inputs).astype(np.float32)

    @classmethod
    def ternary(cls, codes: NDArray[np.int8], scale: float) -> Self:
        """Return codes in {-1, 0, 1} with a scale for all."""
        return cls(codes, np.full((1, 1), scale, np.float32), 1.58)


Weight = Floats | Codes


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder of the Qwen2 architecture, or of Llama's, which is Qwen2 without biases."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    intermediate: int
    vocabulary: int
    positions: int
    rope_base: float
    epsilon: float
    """Of the root mean square norms."""
    weights: Mapping[str, Weight]
    """By the names that transformers gives them; without `lm_head.weight` where the embeddings are tied."""

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: Mapping[str, Weight]) -> Self:
        """Take the sizes from what `config.json` of transformers says.

        `ValueError` for another architecture, and for positions that are scaled.
        """
        family = config.get("model_type")
        if family not in ("qwen2", "llama"):
            raise ValueError(f"a {family} model has no form for the edge engine; use a Qwen2 or Llama decoder")
        advice = "which the edge engine does not; use one without"
        rope = config.get("rope_parameters") or {}
        if rope.get("rope_type", "default") != "default" or config.get("rope_scaling"):
            raise ValueError(f"the decoder scales its rotary positions, {advice}")
        if config.get("use_sliding_window"):
            raise ValueError(f"the decoder attends within a sliding window, {advice}")
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        tied = config.get("tie_word_embeddings", False)
        return cls(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_width=config.get("head_dim") or hidden // heads,
            intermediate=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            positions=config["max_position_embeddings"],
            rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            epsilon=config["rms_norm_eps"],
            weights={name: weight for name, weight in weights.items() if not (tied and name == "lm_head.weight")},
        )

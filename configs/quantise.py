"""Configuration of quantisation: which layers become ternary, which int8, and how they are stored."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from configs.base import Config

Layout = Literal["trits5", "bits2"]
Start = Literal["absmean", "kmeans"]
Activations = Literal["int8", "none"]
RowKind = Literal["int8", "int4", "ternary"]

VERSION = 1
"""Version of the packed form."""


class QuantiseRecipe(Config):
    """Which layers are quantised, and how. Patterns are those of shells, on whole names: `model.layers.*.q_proj`."""

    ternary: tuple[str, ...] = ("*",)
    """Linear layers whose weights become -1, 0 or 1 times a scale. A tied head goes with its embedding."""
    int8: tuple[str, ...] = ()
    """Linear layers whose weights get 8 bits, also where `ternary` names them."""
    int4: tuple[str, ...] = ()
    """Linear layers whose weights get 4 bits with a scale for every 32 inputs, as in llama.cpp's Q4_0, also where
    `ternary` names them; what they read stays exact."""
    kept: tuple[str, ...] = ()
    """Linear layers that are left alone, whatever else names them."""
    embedding: RowKind | None = None
    """What embeddings, and heads that are tied to them, are stored as. Null: they are left alone."""
    embeddings: tuple[str, ...] = ("*embed_tokens",)
    """Embeddings that this is done to."""
    slots: tuple[str, ...] = ()
    """Embeddings that get 8 bits whatever `embedding` is: the slots of a memory, which keep apart what is written."""
    layout: Layout = "trits5"
    """How ternary weights are stored: five in a byte (1.6 bits each), or four (2 bits)."""
    start: Start = "absmean"
    """What the scale of a ternary layer is at first: the mean size of its weights, or the centre of their 3-means."""
    activations: Activations = "int8"
    """What linear layers read: inputs of 8 bits with a scale for each token, or inputs as they are."""
    warm_up: float = Field(0.1, ge=0, le=1)
    """Share of the training steps over which weights turn from exact into quantised ones."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.ternary or self.int8 or self.int4 or self.embedding or self.slots):
            raise ValueError(
                "nothing would be quantised; name layers in ternary, int8, int4 or slots, or choose an embedding"
            )
        return self

    def quantization_config(self) -> dict[str, Any]:
        """Return the entry of this name in a model's `config.json`, in the form that transformers reads.

        The method is none that transformers knows: its `bitnet` packs four rows into one, so it would misread ours.
        """
        return {
            "quant_method": "packed_ternary",
            "version": VERSION,
            "layout": self.layout,
            "activations": self.activations,
            "ternary": list(self.ternary),
            "int8": list(self.int8),
            "int4": list(self.int4),
            "modules_to_not_convert": list(self.kept),
            "embedding": self.embedding,
            "embeddings": list(self.embeddings) if self.embedding else [],
            "slots": list(self.slots),
        }

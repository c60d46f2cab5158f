"""Configuration of the adapter from a vision encoder to soft prompts of a language model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from configs.base import Config

Pooling = Literal["mean", "mean_global", "attention", "strided", "resampler"]


class PrefixerConfig(Config):
    """From the tokens of the encoder to soft prompts of a language model."""

    tokens: int = Field(32, ge=1, le=1024)
    """M: soft prompt tokens in front of the text."""
    pooling: Pooling = "attention"
    """From the encoder's tokens to M. `mean`: means of equal blocks of the token grid; `mean_global`: one mean with M
    learned offsets; `attention`: M learned queries; `strided`: every n-th token; `resampler`: M latents that attend to
    the tokens and to each other in several layers (Perceiver)."""
    heads: int = Field(8, ge=1)
    """Attention heads of `attention` and `resampler`."""
    resampler_layers: int = Field(2, ge=1, le=12)
    """Layers of `resampler`."""
    layers: int = Field(2, ge=2, le=4)
    """Linear layers of the MLP."""
    hidden: int | None = Field(None, ge=8)
    """Channels inside the MLP; those of the language model when absent."""
    activation: Literal["silu", "gelu"] = "silu"
    """Between the layers."""
    residual: bool = False
    """Add the MLP, scaled by a learned LayerScale, to a linear map of its input."""

    def check_width(self, width: int) -> None:
        """Refuse an encoder whose tokens have a width that the heads do not divide."""
        if self.pooling in ("attention", "resampler") and width % self.heads:
            raise ValueError(
                f"prefixer.heads ({self.heads}) must divide the {width} channels of the encoder's tokens; change heads"
            )

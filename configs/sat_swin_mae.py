"""Configuration of the masked autoencoder over windows of weather fields."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.base import Config

PatchSize = Annotated[int, Field(ge=1, le=64)]
WindowSize = Annotated[int, Field(ge=1, le=32)]
Depth = Annotated[int, Field(ge=1, le=32)]
Heads = Annotated[int, Field(ge=1, le=64)]


class SwinMaeConfig(Config):
    """A 3D Swin Transformer (arXiv 2106.13230) that is pretrained by masked image modelling (arXiv 2111.09886).

    Sizes with three numbers are in the order time, latitude, longitude.
    """

    patch: tuple[PatchSize, PatchSize, PatchSize] = (2, 4, 4)
    """Input steps and pixels of one token of the first stage."""
    window: tuple[WindowSize, WindowSize, WindowSize] = (2, 8, 8)
    """Tokens of an attention window."""
    width: int = Field(96, ge=6, le=1024)
    """Channels of the first stage; every further stage has twice as many as the one before."""
    depths: tuple[Depth, ...] = Field((2, 2), min_length=1, max_length=4)
    """Blocks of each stage."""
    heads: tuple[Heads, ...] = Field((3, 6), min_length=1, max_length=4)
    """Attention heads of each stage."""
    mlp_ratio: float = Field(4.0, ge=1, le=8)
    """Width of the hidden layer of a block's MLP over that of its input."""
    drop_path: float = Field(0.1, ge=0, lt=1)
    """Probability that training skips the last block of the encoder for a sample; it rises linearly from 0 at the
    first block."""
    merge_time: bool = True
    """Merge 2x2x2 tokens between stages; otherwise 1x2x2, as Video Swin does, which keeps all steps."""
    decoder_width: int = Field(192, ge=6, le=2048)
    """Channels of the decoder, which works on the tokens of the last stage and is not used after pretraining."""
    decoder_depth: int = Field(1, ge=0, le=8)
    """Blocks of the decoder; 0 leaves a linear readout, as in SimMIM."""
    decoder_heads: Heads = 6
    """Attention heads of the decoder."""
    context: Literal["none", "place_and_time"] = "place_and_time"
    """`place_and_time`: every token is told its latitude, longitude, local solar time and season."""

    @property
    def merge(self) -> tuple[int, int, int]:
        """Tokens that become one between two stages."""
        return (2 if self.merge_time else 1, 2, 2)

    @property
    def cell(self) -> tuple[int, int, int]:
        """Input steps and pixels of one token of the last stage, which is also what is hidden as one."""
        merges = len(self.depths) - 1
        time, row, column = (size * step**merges for size, step in zip(self.patch, self.merge, strict=True))
        return time, row, column

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.depths) != len(self.heads):
            raise ValueError(f"depths {self.depths} and heads {self.heads} must both have one number per stage")
        for stage, (width, heads) in enumerate(zip(self.widths, self.heads, strict=True)):
            if width % heads:
                raise ValueError(f"the width {width} of stage {stage} must be a multiple of its {heads} heads")
        if self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"decoder_width ({self.decoder_width}) must be a multiple of decoder_heads ({self.decoder_heads})"
            )
        return self

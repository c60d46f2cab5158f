"""Configuration of a Tiny Recursive Model as a decoder."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.language import Cycles, Heads, LanguageConfig, Layers, Positions, Width, check_heads

Share = Annotated[float, Field(ge=0, le=1)]


class TrmConfig(LanguageConfig):
    """A Tiny Recursive Model (TRM, arXiv 2510.04871), causal, that starts at random: one small net, called again and
    again on an answer `y` and a latent state `z`.
    """

    BUILDS = "models.language.trm_lm:TrmLM"
    kind: Literal["trm"] = "trm"
    hidden: Width = 512
    """Channels of a token."""
    layers: Layers = 2
    """Transformer blocks of the net."""
    heads: Heads = 8
    """Attention heads."""
    expansion: float = Field(4.0, ge=1, le=8)
    """Width of the feed-forward layers; SwiGLU takes two thirds of it, rounded up to a multiple of 256."""
    positions: Positions = 512
    """Longest sequence, image tokens included."""
    mixing: Literal["added", "concatenated"] = "added"
    """`added`, as published: z <- net(x + y + z), n times, then y <- net(y + z). `concatenated`: x, y and z stand one
    behind the other, and each of n steps computes new y and z; three times as long, and a z that y can see."""
    inner_steps: Cycles = 4
    """n: updates of z before each update of y."""
    rounds: Cycles = 1
    """T: updates of y in one step of supervision; gradient runs through the last round, and through all of that."""
    supervision_steps: int = Field(4, ge=1, le=64)
    """Most steps of supervision that a sequence stays in training, its states carried from one to the next."""
    ramp: tuple[Share, Share] = (0.2, 0.6)
    """Shares of the training between which the steps that a sequence stays rise from 1 to supervision_steps: before the
    first step is of use, nothing is learned from the states that it leaves."""
    evaluation_steps: int | None = Field(None, ge=1, le=1024)
    """Steps of every forward pass outside training; supervision_steps when absent."""
    halting: bool = False
    """Learn to tell when the answer is right, and take another sequence then (ACT)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_heads(self.hidden, self.heads)
        if self.ramp[0] > self.ramp[1]:
            raise ValueError(f"ramp {list(self.ramp)} must not end before it begins")
        return self

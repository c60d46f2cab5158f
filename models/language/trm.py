"""TRM (Tiny Recursive Model, arXiv 2510.04871) over sequences: one net that refines an answer and a latent state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from configs.recursive import TrmConfig
from models.language.masks import visible_keys
from models.language.recurrent import Level, Past, cut_normal, rotation_table


@dataclass(frozen=True)
class TrmCarry:
    """State between steps of supervision; no gradient runs through it."""

    y: Tensor
    """Answer (B, S, d)."""
    z: Tensor
    """Latent state (B, S, d)."""
    steps: Tensor
    """Steps made for each sequence (B,), int64."""
    halted: Tensor
    """Sequences that are done (B,), bool; the next step starts them anew."""


class TrmStep(NamedTuple):
    """What a step of supervision gives."""

    y: Tensor
    """(B, S, d), with the gradient of the last round."""
    z: Tensor
    """(B, S, d)"""
    logits: Tensor
    """(B, S, V)"""


class Place(NamedTuple):
    """What every call of the net gets beside its input."""

    rotation: Tensor
    """(2, S, d / heads)"""
    mask: Tensor | None
    """(B, 1, S, T), true where a key may be seen; None: what `causal` says."""
    causal: bool
    past: Past | None = None
    """What was read before."""


def steps_at(config: TrmConfig, progress: float) -> int:
    """Return how many steps a sequence stays when a share of the training is done.

    >>> [steps_at(TrmConfig(supervision_steps=4), share) for share in (0, 0.3, 0.5, 1)]
    [1, 1, 3, 4]
    """
    begin, end = config.ramp
    risen = (progress - begin) / (end - begin) if end > begin else float(progress >= end)
    return 1 + int((config.supervision_steps - 1) * min(1.0, max(0.0, risen)) + 1e-9)


class Trm(nn.Module):
    """x, the embedded sequence, stays; z <- net(x + y + z) n times, then y <- net(y + z): that is a round.

    A step of supervision makes T rounds, the last of them with gradient, all the way. With `causal` a position sees
    itself and those before it, in every call, so that y at i foretells token i + 1; without it, as published for
    puzzles, y at i is the answer at i.
    """

    y_init: Tensor
    z_init: Tensor
    rotation: Tensor

    def __init__(self, config: TrmConfig, vocabulary: int, causal: bool = True) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.embedding = nn.Embedding(vocabulary, config.hidden)
        self.net = Level(config.hidden, config.heads, config.expansion, config.layers)
        self.lm_head = nn.Linear(config.hidden, vocabulary, bias=False)
        self.halt_head = nn.Linear(config.hidden, 1) if config.halting else None
        self.parts = nn.Parameter(torch.zeros(3, config.hidden)) if config.mixing == "concatenated" else None
        self.register_buffer("y_init", cut_normal(torch.empty(config.hidden), 1.0))
        self.register_buffer("z_init", cut_normal(torch.empty(config.hidden), 1.0))
        rotation = rotation_table(config.positions, config.hidden // config.heads)
        self.register_buffer("rotation", rotation, persistent=False)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                cut_normal(module.weight, module.in_features**-0.5)
        cut_normal(self.embedding.weight, self.config.hidden**-0.5)
        if self.halt_head is not None:
            nn.init.zeros_(self.halt_head.weight)
            nn.init.constant_(self.halt_head.bias, -5.0)
        if self.parts is not None:
            cut_normal(self.parts, 1.0)

    def initial_carry(self, inputs_embeds: Tensor) -> TrmCarry:
        """Return a carry in which every sequence starts at the next step."""
        batch, device = len(inputs_embeds), inputs_embeds.device
        state = torch.zeros_like(inputs_embeds)
        steps = torch.zeros(batch, dtype=torch.long, device=device)
        return TrmCarry(state, state, steps, torch.ones(batch, dtype=torch.bool, device=device))

    def supervised_step(
        self,
        carry: TrmCarry,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None = None,
        places: Tensor | None = None,
    ) -> tuple[TrmCarry, TrmStep]:
        """Make a step of supervision; sequences that have halted start anew, and all halt at the last step.

        `inputs_embeds` (B, S, d) is on the scale of the embedding table; mask and places are those of `LanguageModel`.
        """
        restart = carry.halted[:, None, None]
        y, z = torch.where(restart, self.y_init, carry.y), torch.where(restart, self.z_init, carry.z)
        step = self._step(y, z, inputs_embeds, self._place(inputs_embeds, attention_mask, places))
        steps = torch.where(carry.halted, 0, carry.steps) + 1
        halted = steps >= self.config.supervision_steps
        return TrmCarry(step.y.detach(), step.z.detach(), steps, halted), step

    def refine(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None, steps: int, places: Tensor | None = None
    ) -> Iterator[TrmStep]:
        """Yield what each of `steps` steps gives, from the start; gradient comes from within each step."""
        yield from self._refined(inputs_embeds, self._place(inputs_embeds, attention_mask, places), steps)

    def read(self, inputs_embeds: Tensor, attention_mask: Tensor, past: Past, steps: int) -> Tensor:
        """Return logits (B, S, V) after `steps` steps of tokens that follow those of the `past`, kept for as many; the
        mask (B, T) covers both.
        """
        new = inputs_embeds.shape[1]
        past.begin(new)
        mask = visible_keys(attention_mask, self.causal)[:, :, -new:]
        place = Place(self.rotation[:, mask.shape[-1] - new : mask.shape[-1]], mask, self.causal, past)
        *_, last = self._refined(inputs_embeds, place, steps)
        return last.logits

    def _refined(self, inputs_embeds: Tensor, place: Place, steps: int) -> Iterator[TrmStep]:
        y, z = self.y_init.expand_as(inputs_embeds), self.z_init.expand_as(inputs_embeds)
        for _ in range(steps):
            step = self._step(y, z, inputs_embeds, place)
            yield step
            y, z = step.y.detach(), step.z.detach()

    def halting(self, y: Tensor, last: Tensor) -> Tensor:
        """Return (B,): the logit, precise as the weights, of y (B, S, d) being right, read at the prompts' `last`."""
        assert self.halt_head is not None
        state = y[torch.arange(len(y), device=y.device), last]
        with torch.autocast(y.device.type, enabled=False):
            return self.halt_head(state.to(self.halt_head.weight.dtype)).squeeze(-1)

    def _step(self, y: Tensor, z: Tensor, inputs_embeds: Tensor, place: Place) -> TrmStep:
        x = inputs_embeds * self.config.hidden**0.5
        make_round = self._added if self.parts is None else self._concatenated
        with torch.no_grad():
            for _ in range(self.config.rounds - 1):
                y, z = make_round(x, y, z, place)
        y, z = make_round(x, y, z, place)
        return TrmStep(y, z, self.lm_head(y))

    def _added(self, x: Tensor, y: Tensor, z: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        for _ in range(self.config.inner_steps):
            z = self.net(z, y + x, *place)
        return self.net(y, z, *place), z

    def _concatenated(self, x: Tensor, y: Tensor, z: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Let y and z see x and each other, up to the same place."""
        assert self.parts is not None
        length = x.shape[1]
        mask = place.mask
        if mask is None and place.causal:
            mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=x.device).tril()
        if mask is not None:  # of each reading, x, y and z stand one behind the other
            chunks = place.past.chunks if place.past else [length]
            mask = torch.cat([part.repeat(1, 1, 3, 3) for part in mask.split(chunks, -1)], -1)
        wide = Place(place.rotation.repeat(1, 3, 1), mask, False, place.past)
        which = self.parts.repeat_interleave(length, 0)
        for _ in range(self.config.inner_steps):
            y, z = self.net(torch.cat([x, y, z], 1), which, *wide)[:, length:].chunk(2, 1)
        return y, z

    def _place(self, inputs_embeds: Tensor, attention_mask: Tensor | None, places: Tensor | None) -> Place:
        rotation = self.rotation[:, : inputs_embeds.shape[1]] if places is None else self.rotation[:, places]
        mask = None if attention_mask is None else visible_keys(attention_mask, self.causal)
        return Place(rotation, mask, self.causal)

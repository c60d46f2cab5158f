"""HRM-ACTv1 (Hierarchical Reasoning Model, arXiv 2506.21734) as a causal language model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.language import HrmActV1Config
from models.language.masks import visible_keys
from models.language.recurrent import Level, Past, cut_normal, rotation_table

EXPLORATION = 0.1
"""Probability that a sequence must think for a random number of steps before it may halt."""
IGNORED = -100
"""Label of a position that is not scored."""


@dataclass(frozen=True)
class Carry:
    """State between ACT steps; no gradient runs through it."""

    z_h: Tensor
    """Slow state (B, S, d)."""
    z_l: Tensor
    """Fast state (B, S, d)."""
    steps: Tensor
    """ACT steps made for each sequence (B,), int64."""
    halted: Tensor
    """Sequences that are done (B,), bool; the next step starts them anew."""


@dataclass(frozen=True)
class ActStep:
    """What an ACT step in training gives."""

    loss: Tensor
    """Mean over the batch, fp32."""
    carry: Carry
    """State for the next step; where it has halted, the caller may put another sequence."""
    logits: Tensor
    """(B, S, V)."""
    exact: Tensor
    """Sequences whose scored tokens are all right (B,), bool."""


class HrmAct(nn.Module):
    """Two recurrent transformers at different rates that refine the answer over a number of ACT steps.

    With `causal` off it computes what was published. With it on, a position sees itself and those before it, and the
    halting values are read from the last token of a sequence, which has seen all of it, instead of from the first.
    """

    h_init: Tensor
    l_init: Tensor
    rotation: Tensor

    def __init__(self, config: HrmActV1Config, vocabulary: int, causal: bool = True) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.embedding = nn.Embedding(vocabulary, config.hidden)
        self.lm_head = nn.Linear(config.hidden, vocabulary, bias=False)
        self.q_head = nn.Linear(config.hidden, 2)
        self.l_level = Level(config.hidden, config.heads, config.expansion, config.l_layers)
        self.h_level = Level(config.hidden, config.heads, config.expansion, config.h_layers)
        self.register_buffer("h_init", cut_normal(torch.empty(config.hidden), 1.0))
        self.register_buffer("l_init", cut_normal(torch.empty(config.hidden), 1.0))
        rotation = rotation_table(config.positions, config.hidden // config.heads)
        self.register_buffer("rotation", rotation, persistent=False)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                cut_normal(module.weight, module.in_features**-0.5)
        cut_normal(self.embedding.weight, self.config.hidden**-0.5)
        nn.init.zeros_(self.q_head.weight)
        nn.init.constant_(self.q_head.bias, -5.0)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return (B, S, d) on the scale of the embedding table, which is what the other methods take."""
        return self.embedding(ids)

    def initial_carry(self, inputs_embeds: Tensor) -> Carry:
        """Return a carry in which every sequence starts at the next step."""
        batch, device = inputs_embeds.shape[0], inputs_embeds.device
        state = torch.zeros_like(inputs_embeds)
        steps = torch.zeros(batch, dtype=torch.long, device=device)
        return Carry(state, state, steps, torch.ones(batch, dtype=torch.bool, device=device))

    def forward_with_embeds(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, steps: int | None = None
    ) -> Tensor:
        """Return logits (B, S, V) after `steps` ACT steps from the start; the configured number when None.

        `inputs_embeds` (B, S, d), `attention_mask` (B, S) is nonzero at tokens and zero at padding. Gradient comes
        from the last L and H call of the last step alone, because a carry never has any.
        """
        return self._after(inputs_embeds, *self._place(inputs_embeds, attention_mask), steps=steps)

    def read(self, inputs_embeds: Tensor, attention_mask: Tensor, past: Past) -> Tensor:
        """Return logits (B, S, V) of tokens that follow those of the `past`; the mask (B, T) covers both."""
        new = inputs_embeds.shape[1]
        past.begin(new)
        mask = visible_keys(attention_mask, self.causal)[:, :, -new:]
        return self._after(inputs_embeds, self.rotation[:, mask.shape[-1] - new : mask.shape[-1]], mask, past)

    def _after(
        self,
        inputs_embeds: Tensor,
        rotation: Tensor,
        mask: Tensor | None,
        past: Past | None = None,
        steps: int | None = None,
    ) -> Tensor:
        place = (rotation, mask, past)
        steps = steps or self.config.evaluation_steps or self.config.max_steps
        z_h, z_l = self.h_init.expand_as(inputs_embeds), self.l_init.expand_as(inputs_embeds)
        with torch.no_grad():
            for _ in range(steps - 1):
                z_h, z_l = self._think(z_h, z_l, inputs_embeds, *place)
        z_h, _ = self._think(z_h, z_l, inputs_embeds, *place)
        return self.lm_head(z_h)

    def act_step(
        self, carry: Carry, inputs_embeds: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Carry, Tensor, Tensor, Tensor]:
        """Make one ACT step and return the carry, logits (B, S, V), q_halt (B,) and q_continue (B,) in fp32.

        Sequences that have halted start anew; all halt at max_steps and not before.
        """
        restart = carry.halted[:, None, None]
        z_h, z_l = torch.where(restart, self.h_init, carry.z_h), torch.where(restart, self.l_init, carry.z_l)
        z_h, z_l = self._think(z_h, z_l, inputs_embeds, *self._place(inputs_embeds, attention_mask))
        steps = torch.where(carry.halted, 0, carry.steps) + 1
        new = Carry(z_h.detach(), z_l.detach(), steps, steps >= self.config.max_steps)
        q_halt, q_continue = self._halting(z_h, attention_mask).unbind(-1)
        return new, self.lm_head(z_h), q_halt, q_continue

    def act_loss(
        self,
        carry: Carry,
        inputs_embeds: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        *,
        generator: torch.Generator,
    ) -> ActStep:
        """Make one ACT step in training: its loss, and which sequences halt.

        `labels` (B, S) are shifted already: `labels[:, i]` is the token at i + 1, or -100 where it is not scored. The
        loss of a sequence is its mean token loss plus half of what the two halting values miss: q_halt predicts
        whether the sequence is exact, q_continue the better value of the next step. `generator` draws which
        sequences must go on, and how long.
        """
        carry, logits, q_halt, q_continue = self.act_step(carry, inputs_embeds, attention_mask)
        scored = labels != IGNORED
        exact = ((logits.detach().argmax(-1) == labels) | ~scored).all(-1)
        with torch.no_grad():
            target = self._continue_target(carry, inputs_embeds, attention_mask)
            explored = carry.steps >= self._least_steps(carry.steps, generator)
            halted = carry.halted | ((q_halt > q_continue) & explored)
        token_loss = stablemax_cross_entropy(logits, labels).sum(-1) / scored.sum(-1).clamp_min(1)
        halt_loss = F.binary_cross_entropy_with_logits(q_halt, exact.to(q_halt.dtype), reduction="none")
        continue_loss = F.binary_cross_entropy_with_logits(q_continue, target, reduction="none")
        loss = (token_loss + 0.5 * (halt_loss + continue_loss)).mean()
        return ActStep(loss.float(), replace(carry, halted=halted), logits, exact)

    def _continue_target(self, carry: Carry, inputs_embeds: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return (B,): the value of going on, from what the step after `carry` would say."""
        z_h, _ = self._think(carry.z_h, carry.z_l, inputs_embeds, *self._place(inputs_embeds, attention_mask))
        q_halt, q_continue = self._halting(z_h, attention_mask).unbind(-1)
        last = carry.steps >= self.config.max_steps
        return torch.where(last, q_halt, torch.maximum(q_halt, q_continue)).sigmoid()

    def _least_steps(self, steps: Tensor, generator: torch.Generator) -> Tensor:
        """Return (B,): 0, or with probability `EXPLORATION` a number of steps from 2 to max_steps."""
        explore = torch.rand(steps.shape, generator=generator, device=generator.device) < EXPLORATION
        least = torch.randint(2, self.config.max_steps + 1, steps.shape, generator=generator, device=generator.device)
        return torch.where(explore, least, 0).to(steps.device)

    def _think(
        self,
        z_h: Tensor,
        z_l: Tensor,
        inputs_embeds: Tensor,
        rotation: Tensor,
        mask: Tensor | None,
        past: Past | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the states after all cycles of a step; only the last L and the last H call carry gradient."""
        x = inputs_embeds * self.config.hidden**0.5
        place = (rotation, mask, self.causal, past)
        with torch.no_grad():
            for h_cycle in reversed(range(self.config.h_cycles)):
                for l_cycle in reversed(range(self.config.l_cycles)):
                    if h_cycle or l_cycle:
                        z_l = self.l_level(z_l, z_h + x, *place)
                if h_cycle:
                    z_h = self.h_level(z_h, z_l, *place)
        z_l = self.l_level(z_l, z_h + x, *place)
        return self.h_level(z_h, z_l, *place), z_l

    def _halting(self, z_h: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return (B, 2): q_halt and q_continue in fp32."""
        if not self.causal:
            state = z_h[:, 0]
        elif attention_mask is None:
            state = z_h[:, -1]
        else:
            order = torch.arange(z_h.shape[1], device=z_h.device)
            last = torch.where(attention_mask.bool(), order, 0).argmax(-1)
            state = z_h[torch.arange(len(z_h), device=z_h.device), last]
        with torch.autocast(z_h.device.type, enabled=False):
            return self.q_head(state.float())

    def _place(self, inputs_embeds: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the rotation (2, S, d / heads) and the attention mask (B, 1, S, S), or None where all is seen."""
        length = inputs_embeds.shape[1]
        rotation = self.rotation[:, :length]
        return rotation, None if attention_mask is None else visible_keys(attention_mask, self.causal)


def log_stablemax(logits: Tensor) -> Tensor:
    """Return log probabilities (..., V) by stablemax (arXiv 2501.04697): x + 1, below 0 1 / (1 - x), over the sum."""
    mass = torch.where(logits < 0, 1 / (1 - logits.clamp_max(0)), logits + 1)
    return (mass / mass.sum(-1, keepdim=True)).log()


def stablemax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B, S) in float64 from (B, S, V) and labels (B, S); 0 where the label is -100."""
    scored = labels != IGNORED
    chosen = log_stablemax(logits.double()).gather(-1, labels.where(scored, 0)[..., None]).squeeze(-1)
    return -chosen.where(scored, 0.0)

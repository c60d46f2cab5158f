"""Trainings of puzzles: by a TRM whose states are carried from step to step, or by a plain transformer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.sudoku import SIDE, UNITS, Sudokus
from configs.base import Config
from configs.recursive import TrmConfig
from models.language.recurrent import NORM_EPS, Attention, SwiGLU, cut_normal, rotation_table
from models.language.trm import Trm, TrmCarry
from tasks.training.carried import HALTED, CarriedRows, Rows
from tasks.training.loader import Weigher
from tasks.training.objective import Objective
from tasks.training.share import Share

EVALUATED = 256  # puzzles of a batch
HALTING_WEIGHT = 0.5
RAMP = 0.2, 0.6
"""Shares of the training between which the steps of supervision rise from one to all."""


class PuzzleConfig(Config):
    """What is trained on which puzzles."""

    train: str
    """File of `Sudokus`."""
    judged: str
    """File of `Sudokus` that are solved after training."""
    net: TrmConfig
    """Sizes; of the plain transformer, too."""
    plain_layers: int | None = None
    """Blocks of a plain transformer of the same widths, in place of the TRM."""


class Cells(nn.Module):
    """Adds rows, columns and boxes to embedded cells: rotary positions alone do not tell where a row ends."""

    unit_of: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.units = nn.Embedding(len(UNITS), hidden)
        cut_normal(self.units.weight, hidden**-0.5)
        unit_of = torch.tensor([[u for u, unit in enumerate(UNITS) if cell in unit] for cell in range(SIDE**2)])
        self.register_buffer("unit_of", unit_of, persistent=False)

    def forward(self, embedded: Tensor) -> Tensor:
        """Return (B, S, d) on the scale of the embedding table."""
        return embedded + self.units(self.unit_of).sum(1)


class RecursiveNet(nn.Module):
    """TRM over the cells of a puzzle; all of what it knows of a puzzle is the puzzle."""

    def __init__(self, config: TrmConfig) -> None:
        super().__init__()
        self.trm = Trm(config, SIDE + 1, causal=False)
        self.cells = Cells(config.hidden)
        self.steps = config.evaluation_steps or config.supervision_steps

    def embed(self, tokens: Tensor) -> Tensor:
        """Return (B, S, d)."""
        return self.cells(self.trm.embedding(tokens))

    def by_depth(self, tokens: Tensor, steps: int) -> Iterator[Tensor]:
        """Yield logits (B, S, V) after each step."""
        for step in self.trm.refine(self.embed(tokens), None, steps):
            yield step.logits

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, S, V) after the last step."""
        *_, last = self.by_depth(tokens, self.steps)
        return last


class PlainNet(nn.Module):
    """A transformer of the same layers, called once, with a norm before each."""

    rotation: Tensor

    def __init__(self, config: TrmConfig, layers: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.embedding = nn.Embedding(SIDE + 1, hidden)
        self.cells = Cells(hidden)
        self.attentions = nn.ModuleList(Attention(hidden, config.heads) for _ in range(layers))
        self.mlps = nn.ModuleList(SwiGLU(hidden, config.expansion) for _ in range(layers))
        self.lm_head = nn.Linear(hidden, SIDE + 1, bias=False)
        self.register_buffer("rotation", rotation_table(SIDE**2, hidden // config.heads), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                cut_normal(module.weight, module.in_features**-0.5)
        cut_normal(self.embedding.weight, hidden**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, S, V)."""
        x = self.cells(self.embedding(tokens)) * self.embedding.embedding_dim**0.5
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            x = x + attention(_norm(x), self.rotation, None, False)
            x = x + mlp(_norm(x))
        return self.lm_head(_norm(x))


class PuzzleObjective(Objective):
    """Cross-entropy of the answer's cells, after every step of supervision."""

    coefficients: Mapping[str, float] = {"halting": HALTING_WEIGHT}

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = PuzzleConfig.model_validate(config)
        self._carried = CarriedRows()

    def build(self) -> nn.Module:
        """Return the net with its initial weights."""
        config = self.config
        if config.plain_layers is None:
            return RecursiveNet(config.net)
        return PlainNet(config.net, config.plain_layers)

    def source(self, part: str) -> SudokuSource:
        """Return the puzzles that are trained on, of the part `train`, or those that are judged."""
        path = self.config.train if part == "train" else self.config.judged
        return SudokuSource(Sudokus.load(Path(path)), renames=part == "train")

    @staticmethod
    def collate(samples: Sequence[Rows]) -> Rows:
        """Return rows (B, S)."""
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def weigher(self) -> Weigher:
        """Return what counts puzzles."""
        return count_puzzles_halting if self._halts else count_puzzles

    @property
    def _halts(self) -> bool:
        return self.config.plain_layers is None and self.config.net.halting

    def losses(self, model: nn.Module, batch: Rows) -> dict[str, Tensor]:
        """Return sums over puzzles; a TRM goes on with those that it has not done with."""
        if isinstance(model, RecursiveNet):
            return self._carried_losses(model, batch)
        return {"cells": mean_of_unknown(model(batch["tokens"]), batch).sum()}

    def _carried_losses(self, model: RecursiveNet, batch: Rows) -> dict[str, Tensor]:
        place = self.moment.micro_batch
        rows, state = self._carried.take(place, batch)
        embedded = model.embed(rows["tokens"])
        carry = model.trm.initial_carry(embedded) if state is None else TrmCarry(**state)
        carry, step = model.trm.supervised_step(carry, embedded)
        losses = {"cells": mean_of_unknown(step.logits, rows).sum()}
        if self._halts:
            right = right_or_known(step.logits, rows).all(1)
            logits = model.trm.halting(step.y, torch.zeros_like(carry.steps))
            losses["halting"] = F.binary_cross_entropy_with_logits(logits, right.float(), reduction="sum")
            carry = replace(carry, halted=carry.halted | (logits.detach() > 0))
        carry = replace(carry, halted=carry.halted | (carry.steps >= self._most_steps()))
        self._carried.keep(place, rows, {"y": carry.y, "z": carry.z, "steps": carry.steps, HALTED: carry.halted})
        return losses

    def _most_steps(self) -> int:
        """Return the steps after which a puzzle makes place, which become more while the training goes on.

        Before the net knows what to do in its first step, later ones begin with states in which all cells are alike,
        and nothing is learned from them.
        """
        begin, end = RAMP
        ramp = (self.moment.step / self.moment.steps - begin) / (end - begin)
        return 1 + math.floor((self.config.net.supervision_steps - 1) * min(1.0, max(0.0, ramp)))

    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return the share of judged puzzles that are solved."""
        right = torch.cat([right_or_known(model(rows["tokens"]), rows).all(1) for rows in self.judged(share)])
        return {"solved": float(right.float().mean())}

    def judged(self, share: Share) -> Iterator[Rows]:
        """Yield the puzzles that are judged as batches."""
        source = self.source("judged")
        for first in range(0, len(source), EVALUATED):
            samples = [source.sample(index, 0) for index in range(first, min(first + EVALUATED, len(source)))]
            yield {name: tensor.to(share.device) for name, tensor in self.collate(samples).items()}

    def release_config(self) -> dict[str, Any]:
        """Return the configuration."""
        return self.config.model_dump(mode="json")

    def state_dict(self) -> dict[str, Tensor]:
        """Return the rows that are in work, and their states."""
        return self._carried.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self._carried.load_state_dict(state)


class SudokuSource:
    """Puzzles as samples; in training their digits are renamed every time."""

    def __init__(self, puzzles: Sudokus, renames: bool) -> None:
        self._clues, self._solutions = torch.from_numpy(puzzles.clues), torch.from_numpy(puzzles.solutions)
        self._renames = renames

    def __len__(self) -> int:
        return len(self._clues)

    def sample(self, index: int, seed: int) -> Rows:
        """Return a puzzle and its answer, (S,) each."""
        names = torch.arange(SIDE + 1)
        if self._renames:
            names[1:] = 1 + torch.randperm(SIDE, generator=torch.Generator().manual_seed(seed))
        return {"tokens": names[self._clues[index]], "answer": names[self._solutions[index]]}


def mean_of_unknown(logits: Tensor, rows: Rows) -> Tensor:
    """Return (B,): the mean cross-entropy of the unknown cells, in fp32."""
    losses = F.cross_entropy(logits.float().transpose(1, 2), rows["answer"], reduction="none")
    unknown = rows["tokens"] == 0
    return (losses * unknown).sum(1) / unknown.sum(1)


def right_or_known(logits: Tensor, rows: Rows) -> Tensor:
    """Return (B, S): false where an unknown cell gets a wrong digit."""
    return (logits.argmax(-1) == rows["answer"]) | (rows["tokens"] != 0)


def count_puzzles(batch: Rows) -> dict[str, float]:
    """Return weights of a net without halting."""
    return {"cells": float(len(batch["tokens"]))}


def count_puzzles_halting(batch: Rows) -> dict[str, float]:
    """Return weights of a net that learns to halt."""
    return {**count_puzzles(batch), "halting": float(len(batch["tokens"]))}


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x.float(), x.shape[-1:], eps=NORM_EPS).to(x.dtype)

"""What an answerer is trained towards: the tokens of answers, and, of a recursive one, all along its refinement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.answering import AnswererDesign
from configs.recursive import TrmConfig
from models.language.trm import TrmCarry, steps_at
from models.language.trm_lm import TrmLM
from models.vision_language.answerer import AnswerBatch, Answerer
from storage.question_set import QuestionSet
from storage.sampling import sample_seed
from tasks.answering.released import AnswererRelease, answerer_config, assemble
from tasks.answering.samples import AnswerSample, Asking, Questions, collate
from tasks.text.tokens import Tokens
from tasks.training.carried import CarriedRows
from tasks.training.loader import Weigher, ordered_batches
from tasks.training.objective import Objective
from tasks.training.share import Share

BATCH = 64
"""Questions of one forward pass of an evaluation."""
LOOKED_AT = 2000
"""Questions whose length is looked at."""
EXPLORATION = 0.1
"""Probability that a sequence must take another step, though its answer seems right."""


class AnswerObjective(Objective):
    """Answers, configured by folders (`questions`, `encoder`), `tokenizer`, `design`, `questions_at_once`,
    `halting_weight` and `validation_questions`.

    The loss of a question is the mean over the tokens of its answer. A recursive decoder keeps the questions about an
    item for several optimiser steps, with their states; what comes with a step takes the places of those that are done.
    """

    RELEASE = AnswererRelease
    PREVIEWS = "tasks.answering.previews:draw"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._folder, self._encoder = Path(config["questions"]), config["encoder"]
        self.design = AnswererDesign.model_validate(config["design"])
        self.tokens = Tokens.load(config["tokenizer"])
        self.coefficients = {"nll": 1.0, "halting": float(config["halting_weight"])}
        self._validation = int(config["validation_questions"])
        recursive = isinstance(self.design.decoder, TrmConfig)
        self.asking = Asking.of(self.tokens, self.design)
        self._at_once = int(config["questions_at_once"])
        self._halts = isinstance(self.design.decoder, TrmConfig) and self.design.decoder.halting
        self._carried = CarriedRows() if recursive else None
        self._left_out: frozenset[str] = frozenset()

    def build(self) -> nn.Module:
        """Return the answerer, once it is sure that all sequences fit into its decoder."""
        model = assemble(self.design, self.tokens, QuestionSet(self._folder))
        language = model.language
        longest = model.tokens + self.asking.length
        if longest > language.positions:
            raise ValueError(
                f"image, question and answer have up to {longest} tokens, and the decoder takes {language.positions}; "
                "raise its positions, or lower longest_question and longest_answer"
            )
        if self.design.tokenizer_source:
            frozen = {f"language.{name}" for name, p in language.named_parameters() if not p.requires_grad}
            quantised = self.design.adaptation is not None and self.design.adaptation.four_bit
            names = [name for name in model.state_dict() if name.startswith("language.")]
            adapters = {name for name in names if "lora_" in name}
            self._left_out = frozenset(set(names) - adapters if quantised else frozen)
        return model

    def stored(self, name: str) -> bool:
        """Say whether an entry belongs to the model; what a pretrained decoder keeps is where it was."""
        return name not in self._left_out

    def source(self, part: str) -> Questions:
        """Return the questions of a part; those that are learned from come several at once about an item."""
        if part == "validation":
            return Questions(self._folder, part, self.asking, self._validation)
        return Questions(self._folder, part, self.asking, at_once=self._at_once, fixed=self._carried is not None)

    @staticmethod
    def collate(samples: Sequence[AnswerSample]) -> AnswerBatch:
        """Stack what was seen and pad sequences."""
        return collate(samples)

    def weigher(self) -> Weigher:
        """Return the function that counts questions."""
        return CountQuestions(("nll", "halting") if self._halts else ("nll",))

    def losses(self, model: nn.Module, batch: AnswerBatch) -> dict[str, Tensor]:
        """Return the sum over questions of the mean nats of their answers' tokens, and of halting, if it is learned."""
        assert isinstance(model, Answerer)
        if self._carried is None:
            return {"nll": nats_per_answer(model(batch), batch).sum()}
        return self._carried_losses(model, batch, self._carried)

    def _carried_losses(self, model: Answerer, fresh: AnswerBatch, carried: CarriedRows) -> dict[str, Tensor]:
        """Make one step of supervision on the questions that are not done, and on fresh ones in place of the others."""
        language, number = model.language, self.moment.micro_batch
        assert isinstance(language, TrmLM)
        rows, state = carried.take(number, fresh.rows())
        batch = AnswerBatch.of_rows(rows)
        sequences = model.embed(batch)
        carry = language.trm.initial_carry(sequences.embeds) if state is None else TrmCarry(**state)
        carry, step = language.trm.supervised_step(carry, *sequences)
        logits = model.foretold(step.logits, batch)
        losses = {"nll": nats_per_answer(logits, batch).sum()}
        halted = carry.halted | (carry.steps >= self._most_steps())
        if self._halts:
            right = all_right(logits, batch)
            logit = language.trm.halting(model.of_questions(step.y, batch), (batch.heads - 1).clamp_min(0))
            nats = F.binary_cross_entropy_with_logits(logit, right.to(logit.dtype), reduction="none")
            losses["halting"] = (nats * batch.asked).sum()
            done = ((logit.detach() > 0) | ~batch.asked).unflatten(0, (len(halted), -1)).all(-1)
            halted = halted | (done & ~self._explored(halted))
        carried.keep(number, rows, {"y": carry.y, "z": carry.z, "steps": carry.steps, "halted": halted})
        share = fresh.asked.sum() / batch.asked.sum().clamp_min(1)  # weights count the questions that come
        return {term: loss * share for term, loss in losses.items()}

    def _most_steps(self) -> int:
        """Return after how many steps a question makes place now."""
        assert isinstance(self.design.decoder, TrmConfig)
        return steps_at(self.design.decoder, self.moment.step / max(self.moment.steps, 1))

    def _explored(self, like: Tensor) -> Tensor:
        """Return (B,) which sequences go on though their answer seems right; drawn by the moment's seed."""
        generator = torch.Generator().manual_seed(self.moment.seed)
        return (torch.rand(like.shape, generator=generator) < EXPLORATION).to(like.device, non_blocking=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the questions that are not done, with their states."""
        return self._carried.state_dict() if self._carried else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        if self._carried:
            self._carried.load_state_dict(state)

    def remark(self, step: int, means: Mapping[str, float]) -> str:
        """Say once how many questions and answers are cut."""
        if step:
            return ""
        asked = Questions(self._folder, "train", self.asking, LOOKED_AT).asked
        cut = sum(map(self.asking.is_cut, asked))
        limits = f"{self.asking.longest_question} and {self.asking.longest_answer}"
        return f"{cut} of {len(asked)} questions or answers have more than {limits} tokens and are cut" if cut else ""

    def evaluate(self, model: nn.Module, share: Share) -> dict[str, float]:
        """Return the share of answers that greedy decoding gets right to the token, and nats per token; with the true
        image and with that of another question.
        """
        assert isinstance(model, Answerer)
        source = self.source("validation")
        if not len(source):
            raise ValueError("the validation split has no questions; raise splits.validation_share")
        sums = torch.zeros(5, dtype=torch.float64)
        own = ordered_batches(share, source, collate, batch_size=BATCH)
        other = ordered_batches(share, Shuffled(source, 0), collate, batch_size=BATCH)
        for batch, shuffled in zip(own, other, strict=True):
            parts = []
            for each in (batch, shuffled):
                logits = model(each)
                parts += [all_right(logits, each).sum(), token_nats(logits, each).sum()]
            sums += torch.stack([*(part.double().cpu() for part in parts), batch.learned.sum().double().cpu()])
        right, nats, right_shuffled, nats_shuffled, tokens = share.sum(sums).tolist()
        return {
            "exact": right / len(source),
            "exact_shuffled": right_shuffled / len(source),
            "nll": nats / tokens,
            "vision_gap": (nats_shuffled - nats) / tokens,
            "uniform_nll": math.log(len(self.tokens)),
        }

    def release_config(self) -> dict[str, Any]:
        """Return the design, and what it sees by."""
        return answerer_config(self.design, QuestionSet(self._folder), self._encoder)


class CountQuestions:
    """Counts questions for some terms; it is sent to loader processes."""

    def __init__(self, terms: tuple[str, ...]) -> None:
        self._terms = terms

    def __call__(self, batch: AnswerBatch) -> dict[str, float]:
        """Return the number of questions for every term."""
        return dict.fromkeys(self._terms, float(batch.asked.sum()))


class Shuffled:
    """Questions, each with what was seen of an item that another question is about."""

    def __init__(self, source: Questions, seed: int) -> None:
        self._source, self._seed = source, seed
        self._items = sorted({asked.item for asked in source.asked})

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, index: int, seed: int) -> AnswerSample:
        """Return a question with another item, chosen by the question's place alone."""
        own, items = self._source.asked[index].item, self._items
        others = len(items) - 1
        drawn = sample_seed(self._seed, 0, index) % max(others, 1)
        place = (items.index(own) + 1 + drawn) % len(items)
        return self._source.seen(index, items[place])


def token_nats(logits: Tensor, batch: AnswerBatch) -> Tensor:
    """Return -log p (B, L) of the answers' tokens under logits (B, L, V), in nats; 0 elsewhere."""
    nats = F.cross_entropy(logits.float().flatten(0, 1), batch.tokens.flatten(), reduction="none")
    return nats.view(batch.tokens.shape) * batch.learned


def nats_per_answer(logits: Tensor, batch: AnswerBatch) -> Tensor:
    """Return the mean nats (B,) over the tokens of each answer; 0 where nothing is asked."""
    return token_nats(logits, batch).sum(-1) / batch.learned.sum(-1).clamp_min(1)


def all_right(logits: Tensor, batch: AnswerBatch) -> Tensor:
    """Return (B,) whether the likeliest token is right everywhere in an answer: greedy decoding writes just that."""
    return ((logits.argmax(-1) == batch.tokens) | ~batch.learned).all(-1)

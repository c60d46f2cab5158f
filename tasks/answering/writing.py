"""Answers in words: greedy, drawn, or by beam search; after every step of a recursive decoder if so wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.language.trm_lm import TrmLM
from models.vision_language.answerer import Answerer
from tasks.answering.samples import Asking


@dataclass(frozen=True)
class Writing:
    """How answers are written."""

    max_new_tokens: int = 32
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Mass of the tokens that are drawn from."""
    beams: int = 1
    """Answers that are followed at once; 1: none but the one."""
    generator: torch.Generator | None = None


@torch.no_grad()
def answers(
    model: Answerer, asking: Asking, features: Tensor, questions: Sequence[str], writing: Writing = Writing()
) -> list[str]:
    """Return what a model in evaluation mode answers to questions (B) about what was seen (B, K, width)."""
    ids = [asking.question(question) for question in questions]
    if writing.beams > 1:
        rows = [_beam(model, asking, seen, row, writing) for seen, row in zip(features, ids, strict=True)]
    else:
        rows = model.language.generate(
            *model.prompts(features, ids),
            max_new_tokens=writing.max_new_tokens,
            temperature=writing.temperature,
            top_p=writing.top_p,
            end=asking.tokens.end,
            generator=writing.generator,
        )
    return [asking.tokens.text(row) for row in rows]


def answers_by_depth(
    model: Answerer, asking: Asking, features: Tensor, questions: Sequence[str], steps: int, writing: Writing
) -> Iterator[list[str]]:
    """Yield the answers after 1, 2, ... `steps` steps of a recursive decoder; of a plain one, once."""
    language = model.language
    if not isinstance(language, TrmLM):
        yield answers(model, asking, features, questions, writing)
        return
    usual = language.depth
    try:
        for depth in range(1, steps + 1):
            language.depth = depth
            yield answers(model, asking, features, questions, writing)
    finally:
        language.depth = usual


def _beam(model: Answerer, asking: Asking, seen: Tensor, question: Sequence[int], writing: Writing) -> list[int]:
    """Return the answer of the best mean log probability a token, its end included, that so many beams find."""
    embeds, there = model.prompts(seen[None], [question])
    end, count = asking.tokens.end, writing.beams
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    done: list[tuple[list[int], float]] = []
    for _ in range(writing.max_new_tokens):
        rows = torch.tensor([ids for ids, _ in beams], dtype=torch.int64, device=embeds.device)
        words = model.language.embed_tokens(rows).to(embeds.dtype)
        sequence = torch.cat([embeds.expand(len(beams), -1, -1), words], 1)
        attended = torch.cat([there.expand(len(beams), -1), torch.ones_like(rows, dtype=torch.bool)], 1)
        scores = F.log_softmax(model.language(sequence, attended)[:, -1].float(), -1).cpu()
        scores += torch.tensor([score for _, score in beams])[:, None]
        best = scores.flatten().topk(min(2 * count, scores.numel()))
        grown = []
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            ids, token = beams[place // scores.shape[1]][0], place % scores.shape[1]
            if token == end:
                done.append((ids, score / (len(ids) + 1)))
            else:
                grown.append(([*ids, token], score))
        beams = grown[:count]
        if len(done) >= count or not beams:
            break
    unfinished = [(ids, score / len(ids)) for ids, score in beams if ids]
    return max(done or unfinished, key=lambda one: one[1])[0]

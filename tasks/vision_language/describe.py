"""Texts about images, and about images that were seen before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.vision_language.batch import Texts
from models.vision_language.gaussian_memory import MemoryState
from models.vision_language.microvlm import MicroVLM
from models.vision_language.recall import Reading
from tasks.text.tokens import Tokens, padded


@dataclass(frozen=True)
class Writing:
    """How texts are written."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    generator: torch.Generator | None = None


@torch.no_grad()
def describe(model: MicroVLM, images: Tensor, tokens: Tokens, prompt: str, writing: Writing) -> list[str]:
    """Return what a model in evaluation mode says of images (B, 3, side, side), uint8, after a prompt."""
    seen = model.see(images)
    shown = torch.ones(len(images), dtype=torch.bool, device=images.device)
    return write(model, seen.prefix, shown, None, tokens, [prompt] * len(images), writing)


@torch.no_grad()
def question_reading(model: MicroVLM, state: MemoryState, now: Tensor, tokens: Tokens, questions: list[str]) -> Reading:
    """Return what questions (B) find in memories of B, asked while the image `now` (B,) is looked at or would be the
    next.
    """
    ids, attended = padded([tokens.encode(question, "")[0] for question in questions])
    asked = Texts(ids.to(now.device), attended.to(now.device), torch.zeros_like(attended))
    reading = model.recall.read(model.ask(asked, now)[:, None], state)
    rows = torch.arange(len(questions), device=now.device)
    return reading.of(rows, torch.zeros_like(rows))


def write(
    model: MicroVLM,
    prefix: Tensor,
    shown: Tensor,
    reading: Reading | None,
    tokens: Tokens,
    prompts: list[str],
    writing: Writing,
) -> list[str]:
    """Return the texts that follow prompts (B), with the prefix (B, K, width) of the images that are shown (B,)."""
    heads = [[tokens.begin, *tokens.ids(prompt)] for prompt in prompts]
    ids = model.write(
        heads,
        prefix,
        shown,
        reading,
        max_new_tokens=writing.max_new_tokens,
        end=tokens.end,
        temperature=writing.temperature,
        top_p=writing.top_p,
        generator=writing.generator,
    )
    return [tokens.text(row) for row in ids]

"""How good a vision-language model is: likelihoods with controls, retrieval, captions, and what it recalls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.microvlm import VlmEvaluation
from tasks.intervals import Sums, paired_bootstrap
from tasks.retrieval import recall_at
from tasks.text.metrics import text_scores
from tasks.training.loader import ordered_batches
from tasks.training.share import Share
from tasks.vision_language.attention import attention_statistics, text_attention
from tasks.vision_language.claims import KINDS, Things, claims, named
from tasks.vision_language.describe import Writing, describe
from tasks.vision_language.gaussianity import sliced_epps_pulley
from tasks.vision_language.released import VlmRelease
from tasks.vision_language.samples import Chosen, EpisodePairs, VlmSample, VlmSamples, collate_pairs
from tasks.vision_language.scoring import score_batch

PAIRS = 4
CAPTIONED_AT_ONCE = 16


@dataclass(frozen=True)
class Told:
    """An image with what the model says of it."""

    sample: VlmSample
    text: str
    scene: Things | None
    """What the image shows, where that is known."""


def evaluate_vlm(
    release: VlmRelease,
    samples: VlmSamples,
    scene_of_row: Callable[[int], Things | None],
    evaluation: VlmEvaluation,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, Any], list[Told]]:
    """Return the scores of a model on a split, and its captions."""
    sums, images, texts, attention = _likelihoods(release, samples, evaluation, progress)
    table: dict[str, Any] = {"nats": _nats(sums)}
    paired = {
        "vision_gap": ("nll_shuffled", "nll", "tokens"),
        "vision_gap_to_blind": ("nll_blind", "nll", "tokens"),
        "recall_gap": ("recall_other", "recall", "recalled_tokens"),
        "recall_gap_to_misplaced": ("recall_misplaced", "recall", "recalled_tokens"),
        "recall_gap_to_none": ("recall_without", "recall", "recalled_tokens"),
    }
    for name, (control, own, weight) in paired.items():
        parts = (Sums(sums[control], sums[weight]), Sums(sums[own], sums[weight]))
        table[name] = paired_bootstrap(*parts, evaluation.resamples, evaluation.seed).json()
    table["memory"] = {
        "cue_right": float(sums["cue_right"].sum() / sums["questions"].sum()),
        "scope_right": float(sums["scope_right"].sum() / sums["scopes"].sum()),
    }
    found = recall_at(images @ texts.t())
    table["retrieval"] = {**found, "images": len(images), "gain": found["text_at_1"] / found["chance_at_1"]}
    table["attention"] = {**attention, "divergence": sliced_epps_pulley(_standardised(images))}
    told = _captions(release, samples, scene_of_row, evaluation)
    table["captions"] = _caption_scores(told)
    return table, told


def _likelihoods(
    release: VlmRelease, samples: VlmSamples, evaluation: VlmEvaluation, progress: Callable[[int, int], None]
) -> tuple[dict[str, NDArray[np.float64]], Tensor, Tensor, dict[str, float]]:
    """Score texts in episodes; return sums by name, unit vectors of images and texts, and attention statistics."""
    pairs = EpisodePairs(samples, evaluation.samples)
    sums: dict[str, list[Tensor]] = defaultdict(list)
    images, texts = [], []
    attention: dict[str, float] = {}
    with torch.no_grad():
        for done, batch in enumerate(ordered_batches(Share(), pairs, collate_pairs, PAIRS, evaluation.seed)):
            scores = score_batch(release.network, batch)
            for name, value in scores.sums.items():
                sums[name].append(value.double())
            images.append(scores.images)
            texts.append(scores.texts)
            if not attention and (weights := text_attention(release.network, batch)) is not None:
                attention = attention_statistics(weights, batch.told.learned)
            progress(min((done + 1) * PAIRS, len(pairs)), len(pairs))
    return (
        {name: torch.cat(parts).numpy() for name, parts in sums.items()},
        torch.cat(images),
        torch.cat(texts),
        attention,
    )


def _nats(sums: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return nats per token of everything that was scored."""
    weights = {"nll": "tokens", "recall": "recalled_tokens"}
    return {
        name: float(sums[name].sum() / sums[weights[name.split("_")[0]]].sum())
        for name in ("nll", "nll_shuffled", "nll_blind", "recall", "recall_other", "recall_misplaced", "recall_without")
    }


def _standardised(vectors: Tensor) -> Tensor:
    """Return vectors with mean 0 and standard deviation 1 in every channel: what is left to differ is the shape."""
    return (vectors - vectors.mean(0)) / vectors.std(0).clamp_min(1e-6)


def _captions(
    release: VlmRelease,
    samples: VlmSamples,
    scene_of_row: Callable[[int], Things | None],
    evaluation: VlmEvaluation,
) -> list[Told]:
    """Let the model caption some images."""
    chosen = Chosen(samples, evaluation.texts)
    prompt = release.design.phrases.describe
    told: list[Told] = []
    for first in range(0, len(chosen), CAPTIONED_AT_ONCE):
        part = [chosen.sample(k, 0) for k in range(first, min(first + CAPTIONED_AT_ONCE, len(chosen)))]
        images = torch.stack([sample.image for sample in part])
        texts = describe(release.network, images, release.tokens, prompt, Writing(evaluation.max_new_tokens))
        told += [Told(s, text, scene_of_row(s.row)) for s, text in zip(part, texts, strict=True)]
    return told


def _caption_scores(told: Sequence[Told]) -> dict[str, Any]:
    """Return likeness to the list's captions; and, of known scenes, how much of what is said is so, there and of the
    next image.
    """
    captions = [one for one in told if not one.sample.question]
    found: dict[str, Any] = {}
    if captions:
        scores = text_scores([(one.text, [one.sample.text]) for one in captions])
        found = {name: score.corpus for name, score in scores.items()}
    scenes = [one.scene for one in captions]
    if captions and all(scene is not None for scene in scenes):
        texts = [one.text for one in captions]
        found["true"] = _claims_right(texts, scenes)  # type: ignore[arg-type]
        found["shuffled"] = _claims_right(texts, scenes[1:] + scenes[:1])  # type: ignore[arg-type]
    return found


def _claims_right(texts: Sequence[str], scenes: Sequence[Things]) -> dict[str, float | int | None]:
    """Return by kind the share of claims that are so and their number; `named`: the share of what is there that is
    counted rightly.
    """
    made = [claim for text, scene in zip(texts, scenes, strict=True) for claim in claims(text, scene)]
    found: dict[str, float | int | None] = {}
    for kind in KINDS:
        right = [claim.right for claim in made if claim.kind == kind]
        found |= {kind: float(np.mean(right)) if right else None, f"{kind}_claims": len(right)}
    pairs = [named(text, scene) for text, scene in zip(texts, scenes, strict=True)]
    found["named"] = sum(right for right, _ in pairs) / max(sum(there for _, there in pairs), 1)
    return found

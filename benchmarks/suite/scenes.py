"""Whether a vision-language model that is trained from nothing looks at its images, and what 1.58 bits cost it.

The microvlm pipeline with its profile `scenes`: six thousand generated scenes with captions that people might write.
A language model is trained on the captions alone, then a vision tower, an adapter, an aligned space and an episodic
memory around it, then the language model with them, then all of it in 1.58 bits with the model before as teacher. On
test scenes, which no training saw: the likelihood of captions with their own image and with another; retrieval among
images and captions; counts, colours, shapes and places that captions claim, against what the scene holds and against
the next scene; and perplexity of the packed model over that of the exact one, beside the exact one packed without
training. Intervals (95 %) come from resampling images.

This takes an hour or more, so it runs only when named. It resumes in the same folder, `bench-work/scenes/assets`, or
where MILLRACE_BENCH_SCENES_ROOT says, which may be the root of an earlier `millrace run`.
"""

from __future__ import annotations

import json
import math
from typing import Any

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from benchmarks.pipelines import asset_root, run_pipeline
from configs.load import load_config, profile_path
from configs.microvlm import MicroVlmConfig

ON_REQUEST = True
ROOT = "MILLRACE_BENCH_SCENES_ROOT"
"""Environment variable with the root of the assets."""
PROFILE = "scenes"
EXACT, PACKED, UNTRAINED = "stage2", "few_bits", "untrained"
CLAIMS = ("count", "colour", "shape", "relation")


def run(bench: Bench) -> list[Figure]:
    """Run the pipeline, or find what it made, and read its scores."""
    _, folders = run_pipeline(bench, "microvlm", _config(bench.quick), asset_root(bench, ROOT), PROFILE)
    scores = json.loads((folders["vlm_report"] / "scores.json").read_bytes())
    return [_gap(bench, scores), _retrieval(bench, scores), _recall(bench, scores), _few_bits(bench, scores)]


def _config(quick: bool) -> MicroVlmConfig:
    """Return the profile; `quick` has few images and steps."""
    path = profile_path("microvlm", PROFILE)
    if not quick:
        return load_config(MicroVlmConfig, path)
    small = ["source.images=80", "images_per_shard=40", "splits={validation_share: 0.25, test_share: 0.25}"]
    small += ["evaluation={samples: 8, texts: 2, max_new_tokens: 8, resamples: 100}", "execution.wandb.mode=disabled"]
    trainings = ["vlm.text.training", *(f"vlm.stages.{name}.training" for name in ("stage1", "stage2", "ternary"))]
    small += [f"{training}.{setting}" for training in trainings for setting in ("epochs=1", "steps_per_epoch=2")]
    small += [f"{training}.batch_size=8" for training in trainings]
    return load_config(MicroVlmConfig, path, small)


def _gap(bench: Bench, scores: dict[str, Any]) -> Figure:
    table = scores[EXACT]
    gap, blind, nats, said = (table[part] for part in ("vision_gap", "vision_gap_to_blind", "nats", "captions"))
    true, shuffled = said["true"], said["shuffled"]
    claims = ", ".join(
        f"{claim} {_share(true[claim])} of {true[f'{claim}_claims']} right, {_share(shuffled[claim])} of the next scene"
        for claim in CLAIMS
    )
    others = ", ".join(f"{name} {found['vision_gap']['value']:.3f}" for name, found in scores.items())
    return bench.figure(
        "microvlm_vision_gap_nats",
        what="How much likelier captions are with their image than with another: lower end of the 95 % interval",
        value=rounded(gap["low"]),
        unit="nats per token",
        aim="> 0",
        peer="the same model with another image",
        peer_value=rounded(nats["nll_shuffled"]),
        peer_unit="nats per token",
        notes=(
            f"The gap is {gap['value']:.3f}, from {gap['low']:.3f} to {gap['high']:.3f}: {nats['nll']:.3f} with the "
            f"image, {nats['nll_shuffled']:.3f} with another, {nats['nll_blind']:.3f} with none "
            f"({blind['low']:.3f} to {blind['high']:.3f} more).",
            f"What captions claim: {claims}.",
            f"By model: {others}.",
        ),
        detail={"profile": PROFILE, "scores": scores},
    )


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.0%}"


def _retrieval(bench: Bench, scores: dict[str, Any]) -> Figure:
    found = scores[EXACT]["retrieval"]
    chance = found["chance_at_1"]
    gains = [f"{name} {table['retrieval']['gain']:.1f}" for name, table in scores.items()]
    return bench.figure(
        "microvlm_retrieval_gain",
        what="How much more often than by chance the right caption comes first for an image",
        value=rounded(found["gain"]),
        unit="x",
        aim=">= 20",
        peer="chance",
        peer_value=rounded(chance),
        peer_unit="R@1",
        notes=(
            f"Among {found['images']} images: text R@1 {found['text_at_1']:.3f}, R@5 {found['text_at_5']:.3f}, R@10 "
            f"{found['text_at_10']:.3f}; image R@1 {found['image_at_1']:.3f}, R@5 {found['image_at_5']:.3f}, R@10 "
            f"{found['image_at_10']:.3f}.",
            f"By model: {', '.join(gains)}.",
        ),
        detail={"profile": PROFILE},
    )


def _recall(bench: Bench, scores: dict[str, Any]) -> Figure:
    table = scores[EXACT]
    gap, to_none, nats = table["recall_gap"], table["recall_gap_to_none"], table["nats"]
    return bench.figure(
        "microvlm_recall_gap_nats",
        what="How much likelier texts about an earlier image are with their episode's memory than with another one: "
        "lower end of the 95 % interval",
        value=rounded(gap["low"]),
        unit="nats per token",
        aim="> 0",
        peer="the same model with the memory of another episode",
        peer_value=rounded(nats["recall_other"]),
        peer_unit="nats per token",
        notes=(
            f"{nats['recall']:.3f} with the memory, {nats['recall_other']:.3f} with another, "
            f"{nats['recall_without']:.3f} with none. The gap is {gap['value']:.3f} to another "
            f"({gap['low']:.3f} to {gap['high']:.3f}) and {to_none['value']:.3f} to none.",
        ),
        detail={"profile": PROFILE, "memory": table["memory"]},
    )


def _few_bits(bench: Bench, scores: dict[str, Any]) -> Figure:
    nats = {name: scores[name]["nats"]["nll"] for name in (EXACT, PACKED, UNTRAINED)}
    ratios = {name: math.exp(value - nats[EXACT]) for name, value in nats.items()}
    kept = {name: scores[name]["vision_gap"]["value"] for name in nats}
    return bench.figure(
        "ternary_ppl_ratio",
        what="Perplexity of captions with their image, packed in 1.58 bits after training, over the exact model's",
        value=rounded(ratios[PACKED]),
        unit="x",
        aim="<= 1.3",
        peer="the exact model, packed without training",
        peer_value=rounded(ratios[UNTRAINED]),
        peer_unit="x",
        notes=(
            f"Nats per token: exact {nats[EXACT]:.3f}, trained in 1.58 bits {nats[PACKED]:.3f}, packed without "
            f"training {nats[UNTRAINED]:.3f}.",
            f"The gap to another image: {', '.join(f'{name} {gap:.3f}' for name, gap in kept.items())}.",
        ),
        detail={"profile": PROFILE},
    )

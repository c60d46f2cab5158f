"""Whether a vision-language model that is trained from nothing looks at its images, and what 1.58 bits cost it.

The microvlm pipeline with its profile `scenes`: six thousand generated scenes with captions that people might write.
A language model is trained on the captions alone, then a vision tower, an adapter, an aligned space and an episodic
memory around it, then the language model with them, then all of it with the decoder's layers in 1.58 bits and the model
before as teacher. Those layers are two fifths of the parameters, the rest has 8 bits or is exact: 10 bits a parameter.
On test scenes, which no training saw: the likelihood of captions with their own image, with another and with none;
retrieval among images and captions, beside who knows of each image only which colours its caption names; counts,
colours, shapes and places that captions claim, against what the scene holds and against the next scene; and perplexity
of the packed model over that of the exact one, beside the exact one packed without training. The training of the packed
one began with the exact one, which therefore had five epochs fewer.

One question is asked about each episode of four images, of which one to four were seen: with its memory, with that of
another episode at the same steps, with its own in which the image and another one have changed places, and with none.
What is published is the gap to whichever control is likeliest, its peer. Intervals (95 %) come from resampling images,
and episodes where a memory is asked.

This takes an hour or more, so it runs only when named. It resumes in the same folder, `bench-work/scenes/assets`, or
where MILLRACE_BENCH_SCENES_ROOT says, which may be the root of an earlier `millrace run`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, rounded, with_interval
from benchmarks.figure import Figure
from benchmarks.pipelines import asset_root, run_pipeline
from configs.load import load_config, profile_path
from configs.microvlm import MicroVlmConfig
from storage.image_texts import read_rows
from tasks.vision_language.claims import COLOURS

ON_REQUEST = True
ROOT = "MILLRACE_BENCH_SCENES_ROOT"
"""Environment variable with the root of the assets."""
PROFILE = "scenes"
EXACT, PACKED, UNTRAINED = "stage2", "few_bits", "untrained"
PACKED_STAGE = "ternary"
"""Goes on from the exact model."""
CLAIMS = ("count", "colour", "shape", "relation")
VISION = {"vision_gap": ("another image", "nll_shuffled"), "vision_gap_to_blind": ("no image", "nll_blind")}
"""Controls by the gap to them: what they are, and their nats."""
RECALL = {
    "recall_gap": ("the memory of another episode", "recall_other"),
    "recall_gap_to_misplaced": ("its memory with the image in another's place", "recall_misplaced"),
    "recall_gap_to_none": ("no memory", "recall_without"),
}
Scores = dict[str, Any]


def run(bench: Bench) -> list[Figure]:
    """Run the pipeline, or find what it made, and read its scores."""
    config = _config(bench.quick)
    assert config.vlm is not None, "the profile has a model"
    _, folders = run_pipeline(bench, "microvlm", config, asset_root(bench, ROOT), PROFILE)
    scores = json.loads((folders["vlm_report"] / "scores.json").read_bytes())
    captions = _captions(folders["image_text_shards"], folders["image_text_index"])
    epochs = config.vlm.stages[PACKED_STAGE].training.epochs
    return [
        _gap(bench, scores),
        _retrieval(bench, scores, captions),
        _recall(bench, scores),
        _few_bits(bench, scores, epochs),
    ]


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


def _least(table: Scores, controls: Mapping[str, tuple[str, str]]) -> str:
    """Return the smallest of a model's gaps."""
    return min(controls, key=lambda gap: table[gap]["value"])


def _gaps(table: Scores, controls: Mapping[str, tuple[str, str]]) -> str:
    """Tell the likelihood with each control, and the gap to it."""
    return "; ".join(
        f"{table['nats'][nats]:.3f} with {control}, {with_interval(table[gap])} more"
        for gap, (control, nats) in controls.items()
    )


def _by_model(scores: Scores, controls: Mapping[str, tuple[str, str]]) -> str:
    """Tell every model's smallest gap."""
    least = {name: _least(table, controls) for name, table in scores.items()}
    return "; ".join(f"{name} {with_interval(scores[name][gap])} to {controls[gap][0]}" for name, gap in least.items())


def _gap(bench: Bench, scores: Scores) -> Figure:
    table = scores[EXACT]
    least = _least(table, VISION)
    control, nats = VISION[least]
    true, shuffled = (table["captions"][part] for part in ("true", "shuffled"))
    claims = ", ".join(
        f"{claim} {_share(true[claim])} of {true[f'{claim}_claims']} right, {_share(shuffled[claim])} of the next scene"
        for claim in CLAIMS
    )
    return bench.figure(
        "microvlm_vision_gap_nats",
        what="How much likelier captions are with their image than with another or none, whichever is likelier: lower "
        "end of the 95 % interval",
        value=rounded(table[least]["low"]),
        unit="nats per token",
        aim="> 0",
        peer=f"the same model with {control}",
        peer_value=rounded(table["nats"][nats]),
        peer_unit="nats per token",
        notes=(
            f"{table['nats']['nll']:.3f} with the image; {_gaps(table, VISION)}.",
            f"What captions claim: {claims}.",
            f"The smaller gap by model: {_by_model(scores, VISION)}.",
        ),
        detail={"profile": PROFILE, "scores": scores},
    )


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.0%}"


def _captions(shards: Path, index: Path) -> list[str]:
    """Return the first caption of each test image."""
    first: dict[str, str] = {}
    for row in read_rows(shards, index, "test"):
        first.setdefault(row["key"], row["caption"])
    return list(first.values())


def found_by_colours(captions: Sequence[str]) -> float:
    """Return the R@1 to be expected of who knows of each image only which colours its caption names, and takes any of
    the captions that name the same.
    """
    colours = re.compile(rf"\b({'|'.join(COLOURS)})\b")
    sets = {frozenset(colours.findall(caption.lower())) for caption in captions}
    return len(sets) / len(captions)  # n captions with one set are each found once in n times: one of them a set


def _retrieval(bench: Bench, scores: Scores, captions: Sequence[str]) -> Figure:
    found = scores[EXACT]["retrieval"]
    chance, by_colours = found["chance_at_1"], found_by_colours(captions[: found["images"]])
    gains = [f"{name} {table['retrieval']['gain']:.1f}" for name, table in scores.items()]
    return bench.figure(
        "microvlm_retrieval_gain",
        what="How much more often than by chance the right caption comes first for an image",
        value=rounded(found["gain"]),
        unit="x",
        aim=">= 20",
        peer="whoever knows only which colours a caption names",
        peer_value=rounded(by_colours / chance),
        peer_unit="x",
        notes=(
            f"Among {found['images']} images: text R@1 {found['text_at_1']:.3f}, R@5 {found['text_at_5']:.3f}, R@10 "
            f"{found['text_at_10']:.3f}; image R@1 {found['image_at_1']:.3f}, R@5 {found['image_at_5']:.3f}, R@10 "
            f"{found['image_at_10']:.3f}. By colours alone R@1 {by_colours:.3f}, by chance {chance:.4f}.",
            f"By model: {', '.join(gains)}.",
        ),
        detail={"profile": PROFILE, "by_colours": by_colours},
    )


def _recall(bench: Bench, scores: Scores) -> Figure:
    table = scores[EXACT]
    least = _least(table, RECALL)
    control, nats = RECALL[least]
    return bench.figure(
        "microvlm_recall_gap_nats",
        what="How much likelier texts about an earlier image are with their episode's memory than with any control: "
        "lower end of the 95 % interval",
        value=rounded(table[least]["low"]),
        unit="nats per token",
        aim="> 0",
        peer=f"the same model with {control}",
        peer_value=rounded(table["nats"][nats]),
        peer_unit="nats per token",
        notes=(
            f"{table['nats']['recall']:.3f} with the memory; {_gaps(table, RECALL)}.",
            f"The smallest gap by model: {_by_model(scores, RECALL)}.",
        ),
        detail={"profile": PROFILE, "memory": table["memory"]},
    )


def _few_bits(bench: Bench, scores: Scores, epochs: int) -> Figure:
    nats = {name: scores[name]["nats"]["nll"] for name in (EXACT, PACKED, UNTRAINED)}
    ratios = {name: math.exp(value - nats[EXACT]) for name, value in nats.items()}
    kept = _by_model({name: scores[name] for name in nats}, VISION)
    return bench.figure(
        "ternary_ppl_ratio",
        what="Perplexity of captions with their image, packed with layers in 1.58 bits after training, over that of "
        f"the exact model, which had {epochs} epochs fewer",
        value=rounded(ratios[PACKED]),
        unit="x",
        aim="<= 1.3",
        peer="the exact model, packed without training",
        peer_value=rounded(ratios[UNTRAINED]),
        peer_unit="x",
        notes=(
            f"Nats per token: exact {nats[EXACT]:.3f}, trained in 1.58 bits for {epochs} epochs more "
            f"{nats[PACKED]:.3f}, packed without training {nats[UNTRAINED]:.3f}.",
            f"The smaller gap to another image or none: {kept}.",
        ),
        detail={"profile": PROFILE},
    )

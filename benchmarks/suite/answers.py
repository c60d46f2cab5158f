"""Whether decoders look at images when they answer, and what recursion is worth to them.

The trm_vlm pipeline with its profile `scenes`: twelve thousand generated scenes with questions about counts, colours,
shapes, places, relations, and yes or no. An encoder is aligned with what is said of the images, from random weights;
then decoders are trained on what it saw: TRM, a plain decoder of equal parameters and steps, the same one with as much
computing as TRM (three times the steps, as TRM calls its net three times in each), and a blind one.
On questions about test scenes, which no training saw: exact match, against the blind decoder, the majority's answer and
other images, and TRM against the plain decoder. Intervals (95 %) come from resampling images.

This takes hours, so it runs only when named. It resumes in the same folder, `bench-work/answers/assets`, or
where MILLRACE_BENCH_ANSWERS_ROOT says, which may be the root of an earlier `millrace run`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks.bench import Bench, rounded, with_interval
from benchmarks.figure import Figure
from benchmarks.pipelines import asset_root, run_pipeline
from configs.load import load_config, profile_path
from configs.trm_vlm import TrmVlmConfig

ON_REQUEST = True
ROOT = "MILLRACE_BENCH_ANSWERS_ROOT"
"""Environment variable with the root of the assets."""
PROFILE = "scenes"


def run(bench: Bench) -> list[Figure]:
    """Run the pipeline, or find what it made, and read its scores."""
    _, folders = run_pipeline(bench, "trm_vlm", _config(bench.quick), asset_root(bench, ROOT), PROFILE)
    scores = json.loads((folders["answer_report"] / "scores.json").read_bytes())
    retrieval = json.loads((folders["alignment_report"] / "retrieval.json").read_bytes())
    tables = scores["decoders"]
    return [
        _alignment(bench, retrieval),
        *(_over_blind(bench, name, scores) for name in ("trm", "plain")),
        _over_plain(bench, tables),
        _depth(bench, tables),
    ]


def _config(quick: bool) -> TrmVlmConfig:
    """Return the profile; `quick` has few images and steps."""
    path = profile_path("trm_vlm", PROFILE)
    if not quick:
        return load_config(TrmVlmConfig, path)
    small = ["source.images=80", "images_per_shard=40", "splits={validation_share: 0.25, test_share: 0.25}"]
    small += ["evaluation={questions: 16, max_new_tokens: 2, depths: [1, 2], resamples: 100}", "answering.seeds=[0]"]
    small += ["execution.wandb.mode=disabled", "answering.decoders.trm.training=null"]
    trainings = ("alignment.training", "answering.training")
    small += [f"{training}.{setting}" for training in trainings for setting in ("epochs=1", "steps_per_epoch=2")]
    return load_config(TrmVlmConfig, path, small)


def _alignment(bench: Bench, retrieval: dict[str, Any]) -> Figure:
    by_width = retrieval["by_width"]
    width, whole = next(iter(by_width.items()))
    by = ", ".join(f"{found['text_at_1']:.3f} with {channels}" for channels, found in by_width.items())
    return bench.figure(
        "alignment_r1_gain",
        what="How much more often than by chance the right text comes first for an image, at 64 latents",
        value=rounded(whole["text_at_1"] / whole["chance_at_1"]),
        unit="x",
        aim=">= 20",
        peer="chance",
        peer_value=rounded(whole["chance_at_1"]),
        peer_unit="R@1",
        notes=(
            f"Among {retrieval['images']} images: text R@1 {whole['text_at_1']:.3f}, R@5 {whole['text_at_5']:.3f}, "
            f"R@10 {whole['text_at_10']:.3f}; image R@1 {whole['image_at_1']:.3f}; mAP {whole['text_map']:.3f} and "
            f"{whole['image_map']:.3f}; R@1 by channels: {by}.",
        ),
        detail={"profile": PROFILE, "width": width, "retrieval": retrieval},
    )


def _exact(table: dict[str, Any]) -> float:
    return float(np.mean([seed["scores"]["all"]["exact"] for seed in table["seeds"].values()]))


def _over_blind(bench: Bench, name: str, scores: dict[str, Any]) -> Figure:
    tables = scores["decoders"]
    table = tables[name]
    gains = table["gains"]
    shuffled = np.mean([seed["shuffled"]["exact"] for seed in table["seeds"].values()])
    seeds = ", ".join(f"{seed['scores']['all']['exact']:.3f}" for seed in table["seeds"].values())
    return bench.figure(
        f"{name}_em_gain_over_blind",
        what=f"Share of right answers of the {name} decoder less that of a blind one: lower end of the 95 % interval",
        value=rounded(gains["blind"]["low"]),
        unit="exact match",
        aim=">= 0.15",
        peer="the blind decoder",
        peer_value=rounded(_exact(tables["blind"])),
        peer_unit="exact match",
        notes=(
            f"The gain is {gains['blind']['value']:.3f}, from {gains['blind']['low']:.3f} to "
            f"{gains['blind']['high']:.3f}; over the majority's answer {gains['majority']['value']:.3f}, from "
            f"{gains['majority']['low']:.3f} to {gains['majority']['high']:.3f}. Exact match by seed: {seeds}; "
            f"{shuffled:.3f} with other images.",
            "By kind of question, and the gain over the better of the blind decoder and the majority's answer: "
            f"{_by_kind(table)}.",
        ),
        detail={"profile": PROFILE, "scores": scores},
    )


def _by_kind(table: dict[str, Any]) -> str:
    """Tell the gains at each kind of question."""
    return "; ".join(
        f"{kind.replace('_', '/')} {found['exact']:.2f} of {found['questions']}, "
        f"{with_interval(found['gain'], '+.2f')} over {found['peer']}"
        for kind, found in table["by_kind"].items()
    )


def _over_plain(bench: Bench, tables: dict[str, Any]) -> Figure:
    trm, plain, longer = tables["trm"], tables["plain"], tables["plain_longer"]
    gain, over_longer = trm["gains"]["plain"], trm["gains"]["plain_longer"]
    return bench.figure(
        "trm_em_gain_over_plain",
        what="Share of right answers of TRM less that of a plain decoder of equal parameters",
        value=rounded(gain["value"]),
        unit="exact match",
        peer="a plain decoder of two layers",
        peer_value=rounded(_exact(plain)),
        peer_unit="exact match",
        notes=(
            f"From {gain['low']:.3f} to {gain['high']:.3f}. TRM: {trm['parameters']:,} parameters, "
            f"{trm['gflops']:.3f} x 10^9 operations a question, {_exact(trm):.3f}; plain: {plain['parameters']:,}, "
            f"{plain['gflops']:.3f}, {_exact(plain):.3f}. Both trained for as many steps.",
            f"Over the plain decoder that trained three times as long, with about the computing of TRM: "
            f"{over_longer['value']:.3f}, from {over_longer['low']:.3f} to {over_longer['high']:.3f}; that one answers "
            f"{_exact(longer):.3f} (seeds: {len(longer['seeds'])}).",
        ),
        detail={"profile": PROFILE},
    )


def _depth(bench: Bench, tables: dict[str, Any]) -> Figure:
    """How answers fare when a decoder thinks longer than it was trained to."""
    seeds = [seed["by_depth"] for seed in tables["trm"]["seeds"].values()]
    by_depth = {int(depth): float(np.mean([seed[depth] for seed in seeds])) for depth in seeds[0]}
    trained = max((depth for depth in by_depth if depth <= 4), default=min(by_depth))
    most = max(by_depth)
    told = ", ".join(f"{value:.3f} after {depth}" for depth, value in sorted(by_depth.items()))
    return bench.figure(
        "trm_answer_depth_gain",
        what=f"Answers that are right after {most} steps of recursion less those after {trained}, as in training",
        value=rounded(by_depth[most] - by_depth[trained]),
        unit="exact match",
        peer=f"the same model after {trained} steps",
        peer_value=rounded(by_depth[trained]),
        peer_unit="exact match",
        notes=(f"Right to the token, the mean over seeds: {told}.",),
        detail={"profile": PROFILE, "by_depth": by_depth},
    )

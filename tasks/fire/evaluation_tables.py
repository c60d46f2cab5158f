"""What an evaluation found, as `scores.json` for programs and CSV tables for readers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.fire_evaluation import EvaluationConfig
from storage.files import atomic_path, write_atomic
from storage.token_cache import TokenCache
from tasks.fire.bootstrap import resampled_measures, resampled_rollouts
from tasks.fire.evaluation import Judged
from tasks.fire.scores import (
    GROWTH,
    Mask,
    SampleHistograms,
    fire_lengths,
    fire_sizes,
    measures,
    precision_recall,
    reliability,
    size_classes,
)
from tasks.intervals import Resampled, Resamples

COLUMNS = {
    "growth_f1": "growth F1",
    "growth_precision": "growth precision",
    "growth_recall": "growth recall",
    "growth_ap": "growth AP",
    "macro_f1_later": "macro F1 without t=0",
    "f1": "F1",
    "iou": "IoU",
    "false_growth_rate": "false growth rate",
    "growth_brier": "growth Brier",
    "growth_ece": "calibration error",
}
"""Measures of the table for readers; `scores.json` has all."""
WITH_INTERVAL = ("growth_f1", "growth_ap", "macro_f1_later")


@dataclass(frozen=True)
class Model:
    """The runs of one name, with their scores over resampled test fires."""

    name: str
    runs: list[Judged]
    scores: dict[str, Resampled]
    rollout: dict[str, list[Resampled]]
    """By measure and horizon."""

    @property
    def learned(self) -> bool:
        """Whether it was trained."""
        return self.runs[0].contender.seed is not None

    def means(self, chosen: Mask, calibration_bins: int) -> dict[str, float]:
        """Return every measure of some test samples, its mean over seeds."""
        found = [measures(run.test.select(chosen), run.threshold, calibration_bins) for run in self.runs]
        return {name: float(np.mean([run[name][0] for run in found])) for name in found[0]}


def summarise(judged: Sequence[Judged], config: EvaluationConfig) -> list[Model]:
    """Group runs by name, in their order, and resample the test fires, the same for all, and each model's seeds."""
    if not len(judged[0].test):
        raise ValueError("the test part has no samples; give splits.test_share or splits.test more fires")
    drawn = _drawn_fires(judged[0], config)
    names = list(dict.fromkeys(run.contender.name for run in judged))
    models = []
    for name in names:
        runs = [run for run in judged if run.contender.name == name]
        draw = config.bootstrap_seed, len(runs)  # the same for what has as many runs: a twin in 8 bits stays paired
        seeds = Resamples.draw(np.arange(len(runs)), config.bootstrap_resamples, draw).weights
        tested = [(run.test, run.threshold) for run in runs]
        scores = resampled_measures(drawn, tested, config.calibration_bins, seeds)
        models.append(Model(name, runs, scores, resampled_rollouts(drawn, [run.rollout for run in runs], seeds)))
    return models


def _drawn_fires(judged: Judged, config: EvaluationConfig) -> Resamples:
    fires, resamples, seed = judged.test.fires, config.bootstrap_resamples, config.bootstrap_seed
    if config.bootstrap_block is None:
        return Resamples.draw(fires, resamples, seed)
    begins = np.array([_begins_at(judged.contender.samples("test").cache, fire) for fire in fires.tolist()])
    _, blocks = np.unique(begins // config.bootstrap_block, axis=0, return_inverse=True)
    return Resamples.draw_together(fires, blocks, resamples, seed)


def _begins_at(cache: TokenCache, fire: int) -> tuple[int, int]:
    """Return row and column of the landscape in the middle of a fire's first frame."""
    arrival, crop = cache.arrival(fire), cache.crops[fire]
    row, column = np.argwhere(arrival == arrival.min()).mean(axis=0)
    return crop.y0 + int(row), crop.x0 + int(column)


def groups(samples: SampleHistograms, config: EvaluationConfig) -> dict[str, dict[str, Mask]]:
    """Return which samples belong to each step, class of fire size and length of fire."""
    lengths = fire_lengths(samples)
    sizes = size_classes(fire_sizes(samples), config.size_edges)
    return {
        "step": {str(step): samples.step == step for step in np.unique(samples.step)},
        "size": {name: chosen for name, chosen in sizes.items() if chosen.any()},
        "frames": {str(length): lengths == length for length in np.unique(lengths)},
    }


def write_json(models: Sequence[Model], config: EvaluationConfig, path: Path) -> None:
    """Write every score of every model, with intervals, groups, curves and paired differences."""
    first = models[0].runs[0]
    parts = {"validation": first.validation, "test": first.test}
    content = {
        "settings": config.model_dump(mode="json"),
        "parts": {name: part_facts(samples) for name, samples in parts.items()},
        "models": {model.name: _model(model, config) for model in models},
        "differences": {
            model.name: {other.name: _difference(model, other) for other in models if other is not model}
            for model in models
            if model.learned
        },
    }
    write_atomic(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def part_facts(samples: SampleHistograms) -> dict[str, int]:
    """Return how much a part holds."""
    return {
        "fires": len(samples.fires),
        "samples": len(samples),
        "growing_samples": int(samples.growing.sum()),
        "still_samples": int((~samples.growing).sum()),
        "pixels": int(samples.counts.sum(dtype=np.int64)),
        "growth_pixels": int(samples.counts[:, GROWTH, 1].sum(dtype=np.int64)),
    }


def _model(model: Model, config: EvaluationConfig) -> dict[str, Any]:
    bins = config.calibration_bins
    return {
        "runs": [
            {
                "seed": run.contender.seed,
                "threshold": run.threshold,
                "threshold_from": run.threshold_from,
                "validation": {name: v[0] for name, v in measures(run.validation, run.threshold, bins).items()},
                "test": {name: v[0] for name, v in measures(run.test, run.threshold, bins).items()},
            }
            for run in model.runs
        ],
        "test": {name: score.estimate().json() for name, score in model.scores.items()},
        "rollout": {
            "starts": len(model.runs[0].rollout.fire),
            "fires": len(model.runs[0].rollout.fires),
            **{name: [h.estimate().json() for h in horizons] for name, horizons in model.rollout.items()},
        },
        "groups": {
            kind: {label: _group(model, chosen, bins) for label, chosen in members.items()}
            for kind, members in groups(model.runs[0].test, config).items()
        },
        "reliability": reliability(model.runs[0].test, bins),
        "precision_recall": precision_recall(model.runs[0].test),
    }


def _group(model: Model, chosen: Mask, bins: int) -> dict[str, Any]:
    return part_facts(model.runs[0].test.select(chosen)) | model.means(chosen, bins)


def _difference(model: Model, other: Model) -> dict[str, Any]:
    scores = {name: (score - other.scores[name]).estimate().json() for name, score in model.scores.items()}
    rollout = {
        f"rollout_{name}": [(a - b).estimate().json() for a, b in zip(horizons, other.rollout[name], strict=True)]
        for name, horizons in model.rollout.items()
    }
    return scores | rollout


def _plain(value: Any) -> Any:
    """Return JSON values: NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def write_tables(models: Sequence[Model], config: EvaluationConfig, folder: Path) -> None:
    """Write `scores.csv`, `gains.csv` and `groups.csv`."""
    _write(folder / "scores.csv", _scores(models, config))
    _write(folder / "gains.csv", _gains(models, config))
    _write(folder / "groups.csv", _groups(models, config))


def _scores(models: Sequence[Model], config: EvaluationConfig) -> list[list[str]]:
    steps = config.rollout_steps
    rows = [["model", "seeds", "threshold", *COLUMNS.values(), f"{steps}-step IoU", f"{steps}-step macro IoU"]]
    for model in models:
        thresholds = "/".join(dict.fromkeys(f"{run.threshold:.2f}" for run in model.runs))
        cells = [_cell(model.scores[name], interval=name in WITH_INTERVAL) for name in COLUMNS]
        last = [_cell(model.rollout[name][-1], interval=True) for name in ("iou", "macro_iou")]
        rows.append([model.name, str(len(model.runs)) if model.learned else "", thresholds, *cells, *last])
    return rows


def _gains(models: Sequence[Model], config: EvaluationConfig) -> list[list[str]]:
    """Each learned model against every other that stands behind it or does not learn: paired over the same fires."""
    chosen = {
        "growth_f1": "growth F1",
        "growth_ap": "growth AP",
        "macro_f1_later": "macro F1 without t=0",
        "iou": "IoU",
    }
    rows = [["model", "compared with", *chosen.values(), f"{config.rollout_steps}-step IoU"]]
    for place, model in enumerate(models):
        for rank, other in enumerate(models):
            if model.learned and other is not model and (rank > place or not other.learned):
                cells = [_cell(model.scores[n] - other.scores[n], interval=True, signed=True) for n in chosen]
                rollout = model.rollout["iou"][-1] - other.rollout["iou"][-1]
                rows.append([model.name, other.name, *cells, _cell(rollout, interval=True, signed=True)])
    return rows


def _groups(models: Sequence[Model], config: EvaluationConfig) -> list[list[str]]:
    titles = {"step": "step t", "size": "final size", "frames": "frames T"}
    rows = [["group", "fires", "samples", "still", *(f"{model.name}: growth F1" for model in models)]]
    for kind, members in groups(models[0].runs[0].test, config).items():
        for label, chosen in members.items():
            facts = part_facts(models[0].runs[0].test.select(chosen))
            scores = [_number(model.means(chosen, config.calibration_bins)["growth_f1"]) for model in models]
            counts = [str(facts[name]) for name in ("fires", "samples", "still_samples")]
            rows.append(
                [f"{titles[kind]} = {label}" if kind != "size" else f"{titles[kind]} {label}", *counts, *scores]
            )
    return rows


def _cell(score: Resampled, *, interval: bool, signed: bool = False) -> str:
    found = score.estimate()
    text = _number(found.value, signed)
    if not interval or math.isnan(found.low):
        return text
    return f"{text} [{_number(found.low, signed)}, {_number(found.high, signed)}]"


def _number(value: float, signed: bool = False) -> str:
    if math.isnan(value):
        return ""
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows(rows)

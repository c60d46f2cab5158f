"""Everything that an evaluation leaves in its folder: scores, tables and pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.fire_evaluation import EvaluationConfig
from storage.files import atomic_path
from tasks.figures import save_figure
from tasks.fire.evaluation import Judged
from tasks.fire.evaluation_tables import Model, summarise, write_json, write_tables
from tasks.fire.figures_attention import collect_attention, draw_attention
from tasks.fire.figures_maps import draw_predictions
from tasks.fire.figures_scores import draw_by_step, draw_precision_recall, draw_reliability, draw_rollout
from tasks.fire.latency import measure_latency


def write_evaluation(
    judged: Sequence[Judged],
    config: EvaluationConfig,
    folder: Path,
    *,
    names: Sequence[str] | None = None,
) -> list[Model]:
    """Write `scores.json`, CSV tables, histograms and pictures; return the models with their scores.

    Args:
        judged: all runs; maps show the first learned one beside the baseline with the best growth-F1.
        config: the evaluation.
        folder: where files are written.
        names: name of every fire of the cache, for maps.
    """
    models = summarise(judged, config)
    write_json(models, config, folder / "scores.json")
    write_tables(models, config, folder)
    for index, run in enumerate(judged):
        run.test.save(folder / "histograms" / f"{index:02d}.safetensors")
    figures = {
        "by_step": draw_by_step(models, config),
        "calibration": draw_reliability(models, config.calibration_bins),
        "precision_recall": draw_precision_recall(models),
        "rollout": draw_rollout(models),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    shown = next((run for run in judged if run.contender.seed is not None), judged[0])
    baselines = [model for model in models if not model.learned]
    compared = max(baselines, key=lambda model: model.scores["growth_f1"].value).runs[0]
    if maps := draw_predictions(shown, compared, config.maps, names):
        save_figure(maps, folder / "predictions.png")
    _attention(models, config, folder)
    if config.latency_repeats:
        _latency(models, config, folder / "latency.csv")
    return models


def _attention(models: Sequence[Model], config: EvaluationConfig, folder: Path) -> None:
    for model in models:
        first = model.runs[0]
        fires = first.test.fires[np.linspace(0, len(first.test.fires) - 1, config.attention_fires).round().astype(int)]
        found = collect_attention(first.contender, "test", fires.tolist(), config.batch_size)
        if found is not None:
            save_figure(draw_attention(found, model.name), folder / f"attention_{model.name}.png")


def _latency(models: Sequence[Model], config: EvaluationConfig, path: Path) -> None:
    rows = [["model", "p50 ms", "p95 ms", "crop", "history frames", "threads", "predictions"]]
    for model in models:
        found = measure_latency(model.runs[0].contender, "test", config.latency_repeats)
        crop = f"{found.height} x {found.width}"
        counts = [str(n) for n in (found.frames, found.threads, found.predictions)]
        rows.append([model.name, f"{found.p50:.1f}", f"{found.p95:.1f}", crop, *counts])
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows(rows)

"""Curves of an evaluation: by step, reliability, precision-recall, roll-outs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from configs.fire_evaluation import EvaluationConfig
from tasks.figures import subplots
from tasks.fire.evaluation_tables import Model, groups
from tasks.fire.palette import predictor_colours
from tasks.fire.scores import precision_recall, reliability


def tidy(axes: Axes, title: str, across: str, up: str) -> None:
    """Give axes their words and take away what only frames them."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 5), fontsize=8, frameon=False)


def draw_by_step(models: Sequence[Model], config: EvaluationConfig) -> Figure:
    """Draw growth-F1 and full-state F1 by the step t of a fire, with the number of samples below."""
    figure, (left, right) = subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    colours = predictor_colours([model.name for model in models])
    samples = models[0].runs[0].test
    steps = groups(samples, config)["step"]
    scores = {m.name: [m.means(chosen, config.calibration_bins) for chosen in steps.values()] for m in models}
    for axes, measure, title in (
        (left, "growth_f1", "growth-F1: pixels that burn for the first time"),
        (right, "f1", "F1 of the full state"),
    ):
        for model in models:
            values = [score[measure] for score in scores[model.name]]
            style = "o-" if model.learned else "o--"
            axes.plot(range(len(steps)), values, style, markersize=3, color=colours[model.name], label=model.name)
        labels = [f"{step}\n({int(chosen.sum())})" for step, chosen in steps.items()]
        axes.set_xticks(range(len(steps)), labels)
        axes.set_ylim(-0.02, 1.02)
        tidy(axes, title, "step t (number of test samples)", "F1")
    _legend(figure, left)
    return figure


def draw_reliability(models: Sequence[Model], bins: int) -> Figure:
    """Draw how often pixels burn against how probable that was said to be, over growth pixels of the first run."""
    figure, (upper, lower) = subplots(2, 1, figsize=(5.6, 6.4), height_ratios=[3, 1], sharex=True, layout="constrained")
    colours = predictor_colours([model.name for model in models])
    upper.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="perfect")
    for model in (m for m in models if m.learned):
        curve = reliability(model.runs[0].test, bins)
        error = model.scores["growth_ece"].value
        label = f"{model.name} (error {error:.3f})"
        upper.plot(
            curve["probability"], curve["burnt_share"], "o-", markersize=3, color=colours[model.name], label=label
        )
        lower.plot((np.arange(bins) + 0.5) / bins, curve["pixels"], drawstyle="steps-mid", color=colours[model.name])
    upper.set_ylim(-0.02, 1.02)
    upper.legend(fontsize=8, frameon=False, loc="upper left")
    lower.set_yscale("log")
    lower.set_ylim(bottom=0.8)
    tidy(upper, "calibration on growth pixels", "", "share that burns")
    tidy(lower, "", "predicted probability", "pixels")
    return figure


def draw_precision_recall(models: Sequence[Model]) -> Figure:
    """Draw precision against recall of growth pixels, with the frozen threshold as a dot; first run of each model."""
    figure, axes = subplots(figsize=(6.2, 5.4), layout="constrained")
    colours = predictor_colours([model.name for model in models])
    for model in models:
        if np.isnan(model.scores["growth_precision"].value):
            continue  # predicts no growth at all
        curve = precision_recall(model.runs[0].test)
        label = f"{model.name} (AP {model.scores['growth_ap'].value:.3f})"
        style = "-" if model.learned else "--"
        axes.plot(curve["recall"], curve["precision"], style, color=colours[model.name], label=label)
        at = curve["threshold"].index(model.runs[0].threshold)
        axes.plot(curve["recall"][at], curve["precision"][at], "o", markersize=6, color=colours[model.name])
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    tidy(axes, "growth pixels; the dot is the frozen threshold", "recall", "precision")
    return figure


def draw_rollout(models: Sequence[Model]) -> Figure:
    """Draw the overlap of free roll-outs with the truth by horizon, with 95 % intervals over fires."""
    figure, (left, right) = subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    colours = predictor_colours([model.name for model in models])
    for axes, measure, title in (
        (left, "iou", "IoU of the full state"),
        (right, "growth_iou", "IoU of what burns after the start"),
    ):
        for place, model in enumerate(models):
            found = [score.estimate() for score in model.rollout[measure]]
            horizon = np.arange(1, len(found) + 1) + 0.03 * (place - (len(models) - 1) / 2)
            values = np.array([f.value for f in found])
            spread = np.abs([[f.value - f.low for f in found], [f.high - f.value for f in found]])
            axes.errorbar(
                horizon, values, spread, fmt="o-" if model.learned else "o--", markersize=3, linewidth=1.4,
                elinewidth=0.8, capsize=2, color=colours[model.name], label=model.name,
            )  # fmt: skip
        axes.set_xticks(range(1, len(found) + 1))
        axes.set_ylim(-0.02, 1.02)
        counts = models[0].runs[0].rollout
        tidy(axes, title, f"steps ahead ({len(counts.fire)} starts in {len(counts.fires)} fires)", "IoU")
    _legend(figure, left)
    return figure

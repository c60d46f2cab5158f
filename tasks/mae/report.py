"""The stage that compares a pretrained vision model with its baselines, on windows of the test period."""

from __future__ import annotations

import json

from storage.assets import Asset
from storage.files import write_atomic
from tasks.stage import Job, StageResult, stage

TRAINED = "weather_mae"


@stage("weather_mae_report")
def mae_report(job: Job, *, store: Asset, training_set: Asset, model: Asset, windows: int) -> StageResult:
    """Draw reconstructions, and errors by channel and by share of hidden cells beside those of the baselines; and the
    curves of the pretraining.
    """
    from storage.window_dataset import WindowDataset  # plans do without matplotlib and torch
    from tasks.figures import save_figure
    from tasks.mae.baselines import Climatology
    from tasks.mae.evaluation import GUESSERS, INTERPOLATION, MODEL, RATIOS, masked_errors, reconstruct
    from tasks.mae.pictures import draw_errors, draw_reconstructions
    from tasks.mae.released import MaeRelease
    from tasks.training.curves import draw_curves
    from tasks.training.history import read_history

    release = MaeRelease.from_release(model.folder)
    dataset = WindowDataset(store.folder, training_set.folder, "test")
    release.check(dataset)
    if not len(dataset):
        raise ValueError("the test period has no usable windows to judge on; raise splits.test_share")
    ratios, climate = sorted({*RATIOS, release.recipe.mask_ratio}), Climatology(dataset)

    found = {}
    for at, ratio in enumerate(ratios):
        found[ratio] = masked_errors(release, dataset, climate, windows, ratio)
        job.progress(at + 1, len(ratios))
    at_training = found[release.recipe.mask_ratio]
    by_channel = {name: at_training.by_channel(name, release.channels) for name in GUESSERS}
    by_ratio = {name: {f"{r:g}": found[r].mean(name) for r in ratios} for name in GUESSERS}
    gain = at_training.ratio(MODEL, INTERPOLATION)
    errors = {"by_channel": by_channel, "by_ratio": by_ratio, "vs_interpolation": gain.json()}
    write_atomic(job.folder / "errors.json", json.dumps(errors, indent=1))
    save_figure(draw_errors(by_channel, by_ratio), job.folder / "errors.png")
    shown = reconstruct(release, dataset, release.recipe.mask_ratio)
    save_figure(draw_reconstructions(dataset, *shown), job.folder / "reconstructions.png")
    trained = model.kind == TRAINED
    if trained:
        save_figure(draw_curves(read_history(model.folder)), job.folder / "curves.png")
    return StageResult(
        counts={"windows": len(at_training.steps), "mask_ratio": release.recipe.mask_ratio},
        metrics={
            **{f"error_{name}": at_training.mean(name) for name in GUESSERS},
            "vs_interpolation": gain.value,
            "vs_interpolation_low": gain.low,
            "vs_interpolation_high": gain.high,
        },
        pictures=["reconstructions.png", "errors.png", *(["curves.png"] if trained else [])],
    )

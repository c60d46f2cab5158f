"""The stage that compares a pretrained vision model with its baselines, on windows of the test period."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from storage.assets import Asset
from storage.files import write_atomic
from tasks.stage import Job, StageResult, stage

if TYPE_CHECKING:
    from storage.window_dataset import WindowDataset

TRAINED = "weather_mae"


@stage("weather_mae_report")
def mae_report(job: Job, *, store: Asset, training_set: Asset, model: Asset, windows: int) -> StageResult:
    """Draw reconstructions, and errors by channel and by share of hidden cells beside those of the baselines; and the
    curves of the pretraining. The validation period is judged too, for whoever tunes by the baselines; that and the
    shares rest on a quarter of the windows, since a triangulation takes longer than the model.
    """
    from tasks.figures import save_figure  # plans do without matplotlib and torch
    from tasks.mae.baselines import Climatology
    from tasks.mae.evaluation import GUESSERS, RATIOS, MaskedErrors, fit_paces, masked_errors, reconstruct
    from tasks.mae.pictures import draw_errors, draw_reconstructions
    from tasks.mae.released import MaeRelease
    from tasks.training.curves import draw_curves
    from tasks.training.history import read_history

    release = MaeRelease.from_release(model.folder)
    part = partial(release.windows, store.folder, training_set.folder)
    train, test = part("train"), part("test")
    if not len(test):
        raise ValueError("the test period has no usable windows to judge on; raise splits.test_share")
    trained_at, climate = release.recipe.mask_ratio, Climatology(train)
    ratios, few = sorted({*RATIOS, trained_at}), -(-windows // 4)
    paces = fit_paces(release, train, climate, trained_at)

    def judged(windows: WindowDataset, most: int, ratio: float) -> MaskedErrors:
        return masked_errors(release, windows, climate, paces, most, ratio)

    errors = judged(test, windows, trained_at).summary(release.channels)
    errors["paces"] = dict(zip(release.channels, paces.tolist(), strict=True))
    if "validation" in train.training_set.splits and len(validation := part("validation")):
        errors["validation"] = judged(validation, few, trained_at).summary(release.channels)
    by_ratio: dict[str, dict[str, float]] = {name: {} for name in GUESSERS}
    for at, ratio in enumerate(ratios):
        job.progress(at, len(ratios))
        found = judged(test, few, ratio)
        for name, of_ratio in by_ratio.items():
            of_ratio[f"{ratio:g}"] = found.mean(name)
    job.progress(len(ratios), len(ratios))
    errors["by_ratio"] = by_ratio
    write_atomic(job.folder / "errors.json", json.dumps(errors, indent=1))
    write_atomic(job.folder / "errors.csv", _csv(errors))
    save_figure(draw_errors(errors["by_channel"], by_ratio), job.folder / "errors.png")
    save_figure(draw_reconstructions(test, *reconstruct(release, test, trained_at)), job.folder / "reconstructions.png")
    trained = model.kind == TRAINED
    if trained:
        save_figure(draw_curves(read_history(model.folder)), job.folder / "curves.png")
    return StageResult(
        counts={
            "windows": errors["windows"],
            "spells": errors["spells"],
            "mask_ratio": trained_at,
            **{name: text for name, text in errors.items() if name == "caution"},
        },
        metrics={
            **{f"error_{name}": error for name, error in errors["error"].items()},
            **_ends("vs_interpolation", errors["vs_interpolation"]),
            **_ends("vs_best", errors["vs_best"]["geometric_mean"]),
        },
        pictures=["reconstructions.png", "errors.png", *(["curves.png"] if trained else [])],
    )


def _ends(name: str, ratio: Mapping[str, float | None]) -> dict[str, float]:
    """Return a ratio and the ends of its interval, where it has one, as metrics."""
    names = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return {names[end]: value for end, value in ratio.items() if value is not None}


def _csv(errors: Mapping[str, Any]) -> str:
    """Return the errors of every channel, and the ratio to its best baseline; means of ratios at the end."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names, best = list(errors["by_channel"]), errors["vs_best"]
    writer.writerow(["channel", *names, "best baseline", "ratio to it", "low", "high"])
    for channel, ratio in best["by_channel"].items():
        found = (f"{errors['by_channel'][name][channel]:.4g}" for name in names)
        writer.writerow([channel, *found, best["baseline"][channel], *_cells(ratio)])
    for mean in ("mean", "geometric_mean"):
        writer.writerow([mean.replace("_", " "), *[""] * (len(names) + 1), *_cells(best[mean])])
    return text.getvalue()


def _cells(ratio: Mapping[str, float | None]) -> list[str]:
    return ["" if value is None else f"{value:.4g}" for value in ratio.values()]

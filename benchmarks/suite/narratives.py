"""Whether SatSwinMAE and the narrators on top of it learn anything that simpler guesses do not have.

The weather pipeline with its profile `narratives`: three months of generated weather over Europe, in blocks of time
that follow each other as training, validation and test three times. SatSwinMAE is judged on windows of the test blocks
with the same masks as the baselines; the error is the mean over channels of the squared error of hidden values,
normalised. Narrators are judged on captions of the test blocks: their likelihood with the true window and with a window
of another date over the same region, and the numbers in their texts against the fields, right within 2 °C, 2 m/s, 3 hPa
and 2 mm (or 20 %). Intervals (95 %) come from resampling whole days, the same for both sides.

This takes an hour or more, so it runs only when named. It resumes in the same folder, `bench-work/narratives/assets`,
or where MILLRACE_BENCH_NARRATIVES_ROOT says, which may be the root of an earlier `millrace run`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from benchmarks.pipelines import run_pipeline
from configs.load import load_config, profile_path
from configs.weather_pipeline import WeatherConfig

ON_REQUEST = True
ROOT = "MILLRACE_BENCH_NARRATIVES_ROOT"
"""Environment variable with the root of the assets."""
PROFILE = "narratives"
MODEL, INTERPOLATION = "SatSwinMAE", "linear interpolation"


def run(bench: Bench) -> list[Figure]:
    """Run the pipeline, or find what it made, and read its scores."""
    config = _config(bench.quick)
    root = bench.work / "assets"
    if not bench.quick and (place := os.environ.get(ROOT)):
        root = Path(place).expanduser().absolute()
    _, folders = run_pipeline(bench, "weather", config, root, PROFILE)
    errors = json.loads((folders["mae_report"] / "errors.json").read_bytes())
    scores = json.loads((folders["narration_report"] / "scores.json").read_bytes())
    subject = f"{next(iter(config.narrators))}-{config.seeds[0]}"
    detail = {"profile": PROFILE, "config": config.model_dump(mode="json", exclude={"execution"})}
    return [
        _reconstruction(bench, errors, config, detail),
        _gap(bench, subject, scores, detail),
        _values(bench, subject, scores, detail),
    ]


def _config(quick: bool) -> WeatherConfig:
    """Return the profile; `quick` has few steps, and no ablations."""
    path = profile_path("weather", PROFILE)
    config = load_config(WeatherConfig, path)
    if not quick:
        return config
    trainings = [
        "mae.training", *(f"languages.{name}.text.training" for name in config.languages),
        *(f"narrators.{name}.training" for name in config.narrators),
    ]  # fmt: skip
    small = [f"{training}.{setting}" for training in trainings for setting in ("epochs=1", "steps_per_epoch=2")]
    small += ["mae.report_windows=4", "evaluation={samples: 16, texts: 4, max_new_tokens: 8}", "ablations={}"]
    return load_config(WeatherConfig, path, [*small, "source.resolution=1", "execution.wandb.mode=disabled"])


def _reconstruction(bench: Bench, errors: dict[str, Any], config: WeatherConfig, detail: dict[str, Any]) -> Figure:
    assert config.mae is not None
    at_training = {name: by_ratio[f"{config.mae.mask_ratio:g}"] for name, by_ratio in errors["by_ratio"].items()}
    others = ", ".join(f"{name} {error:.3f}" for name, error in at_training.items() if name != MODEL)
    by_ratio = ", ".join(
        f"{float(ratio):.0%} {error / errors['by_ratio'][INTERPOLATION][ratio]:.2f}"
        for ratio, error in errors["by_ratio"][MODEL].items()
    )
    return bench.figure(
        "mae_vs_interpolation",
        what="Error of SatSwinMAE on hidden parts of held-out windows, over that of linear interpolation",
        value=rounded(at_training[MODEL] / at_training[INTERPOLATION]),
        unit="x",
        aim="<= 0.7",
        peer="linear interpolation in time and space of what is visible",
        peer_value=rounded(at_training[INTERPOLATION]),
        peer_unit="variances",
        notes=(f"{MODEL} {at_training[MODEL]:.3f}, {others}.", f"By share of hidden cells: {by_ratio}."),
        detail={"errors": errors, **detail},
    )


def _gap(bench: Bench, subject: str, scores: dict[str, Any], detail: dict[str, Any]) -> Figure:
    table = scores[subject]
    nats, gap = table["nats_per_token"], table["gap_to_shuffled"]
    others = ", ".join(f"{name} {found['gap_to_shuffled']['value']:.3f}" for name, found in scores.items())
    return bench.figure(
        "narrate_vision_gap_nats",
        what="How much likelier captions are with their own window than with one of another date (lower end, 95 %)",
        value=rounded(gap["low"]),
        unit="nats per token",
        aim="> 0",
        peer="the same narrator with a window of another date over the same region",
        peer_value=rounded(nats["shuffled"]),
        peer_unit="nats per token",
        notes=(
            f"The gap is {gap['value']:.3f}, from {gap['low']:.3f} to {gap['high']:.3f}: {nats['true']:.3f} with the "
            f"true window, {nats['shuffled']:.3f} with another, {nats['blind']:.3f} with none; {table['captions']} "
            f"captions of {table['days']} days.",
            f"By narrator: {others}.",
        ),
        detail={"scores": scores, **detail},
    )


def _values(bench: Bench, subject: str, scores: dict[str, Any], detail: dict[str, Any]) -> Figure:
    table = scores[subject]
    true, other, gain = table["true"], table["shuffled"], table["value_accuracy_gain"]
    if gain is None:
        raise RuntimeError("no number of the texts can be checked against the fields; there is nothing to compare")
    return bench.figure(
        "narrate_value_accuracy_gain",
        what="More numbers in the texts that are right, against texts from a window of another date (lower end, 95 %)",
        value=rounded(gain["low"]),
        unit="share",
        aim="> 0",
        peer="the same narrator with a window of another date over the same region",
        peer_value=rounded(other["value_accuracy"]),
        peer_unit="share right",
        notes=(
            f"{true['value_accuracy']:.1%} of {true['values_checked']} numbers are right, "
            f"{other['value_accuracy']:.1%} with another window; "
            f"the gain is {gain['value']:.3f}, from {gain['low']:.3f} to {gain['high']:.3f}.",
            f"BLEU {true['BLEU']:.1f} against {other['BLEU']:.1f}, CIDEr-D {true['CIDEr-D']:.2f} against "
            f"{other['CIDEr-D']:.2f}, event F1 {true['event_f1']:.2f} against {other['event_f1']:.2f}.",
        ),
        detail={"scores": table, **detail},
    )

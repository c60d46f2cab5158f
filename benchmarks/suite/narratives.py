"""Whether SatSwinMAE and the narrators on top of it learn anything that simpler guesses do not have.

The weather pipeline with its profile `narratives`: a year of generated weather over Europe, in blocks of time that
follow each other as training, validation and test twelve times. SatSwinMAE is judged on windows of the test blocks with
the same masks as the baselines, which are a climatology with the course of day and year, persistence, and linear
interpolation of what visible values depart from that climatology by, with a time step as far as suits each channel best
on training windows. The error is the mean over channels of the squared error of hidden values, normalised; its
intervals (95 %) come from resampling whole spells of weather.

Narrators are judged on captions of the test blocks: their likelihood with the true window, and the numbers in their
texts against the fields, right within 2 °C, 2 m/s, 3 hPa and 2 mm (or 20 %). Beside them stands whatever comes closest:
the same narrator with the fields of another date of the season at the same place and time, or without soft prompts, or
one that was trained without fields and knows places and seasons alone. Intervals (95 %) come from resampling whole
spells, the same for both sides.

This takes an hour or more, so it runs only when named. It resumes in the same folder, `bench-work/narratives/assets`,
or where MILLRACE_BENCH_NARRATIVES_ROOT says, which may be the root of an earlier `millrace run`.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.bench import Bench, rounded, with_interval
from benchmarks.figure import Figure
from benchmarks.pipelines import asset_root, run_pipeline
from configs.load import load_config, profile_path
from configs.weather_pipeline import WeatherConfig

ON_REQUEST = True
ROOT = "MILLRACE_BENCH_NARRATIVES_ROOT"
"""Environment variable with the root of the assets."""
PROFILE = "narratives"
MODEL, INTERPOLATION = "SatSwinMAE", "interpolation of departures"
PEERS = {
    "climate": "a narrator that was trained without fields",
    "shuffled": "the same narrator with the fields of another date of the season",
    "blind": "the same narrator without soft prompts",
}


def run(bench: Bench) -> list[Figure]:
    """Run the pipeline, or find what it made, and read its scores."""
    config = _config(bench.quick)
    _, folders = run_pipeline(bench, "weather", config, asset_root(bench, ROOT), PROFILE)
    errors = json.loads((folders["mae_report"] / "errors.json").read_bytes())
    scores = json.loads((folders["narration_report"] / "scores.json").read_bytes())
    subject = f"{next(iter(config.narrators))}-{config.seeds[0]}"
    return [
        *_reconstruction(bench, errors),
        *_gap(bench, subject, scores),
        *_values(bench, subject, scores),
    ]


def _config(quick: bool) -> WeatherConfig:
    """Return the profile; `quick` has few days and steps, and no ablations."""
    path = profile_path("weather", PROFILE)
    config = load_config(WeatherConfig, path)
    if not quick:
        return config
    trainings = [
        "mae.training", *(f"languages.{name}.text.training" for name in config.languages),
        *(f"narrators.{name}.training" for name in config.narrators),
    ]  # fmt: skip
    small = [f"{training}.{setting}" for training in trainings for setting in ("epochs=1", "steps_per_epoch=2")]
    small += ["mae.report_windows=4", "evaluation={samples: 16, texts: 8, max_new_tokens: 32}", "ablations={}"]
    small += ["source.days=60", "splits.cycles=2", "execution.wandb.mode=disabled"]
    return load_config(WeatherConfig, path, small)


def _reconstruction(bench: Bench, errors: dict[str, Any]) -> list[Figure]:
    """Return the figures of the error over that of interpolation, and over that of each channel's best baseline."""
    found = errors["error"]
    by_ratio = ", ".join(
        f"{float(share):.0%} {error / errors['by_ratio'][INTERPOLATION][share]:.2f}"
        for share, error in errors["by_ratio"][MODEL].items()
    )
    ours, theirs = (errors["by_channel"][name] for name in (MODEL, INTERPOLATION))
    by_channel = ", ".join(f"{channel} {error / theirs[channel]:.2f}" for channel, error in ours.items())
    over, best = errors["vs_interpolation"], errors["vs_best"]
    by_best = ", ".join(
        f"{channel} {with_interval(estimate, '.2f')} {best['baseline'][channel]}"
        for channel, estimate in best["by_channel"].items()
    )
    where = f"over {errors['windows']} windows in {errors['spells']} spells of weather"
    detail = {"profile": PROFILE, "errors": errors}
    return [
        bench.figure(
            "mae_vs_interpolation",
            what="Error of SatSwinMAE on hidden parts of held-out windows, over that of interpolation",
            value=rounded(over["value"]),
            unit="x",
            aim="<= 0.7",
            peer="linear interpolation in time and space of what visible values depart from climatology by",
            peer_value=rounded(found[INTERPOLATION]),
            peer_unit="variances",
            notes=(
                f"The ratio is {with_interval(over, '.2f')}, {where}.",
                f"{', '.join(f'{name} {error:.3f}' for name, error in found.items())}.",
                f"By channel: {by_channel}.",
                f"By share of hidden cells, in a quarter of the windows: {by_ratio}.",
            ),
            detail=detail,
        ),
        bench.figure(
            "mae_vs_best_baseline",
            what="Error of SatSwinMAE over that of each channel's best baseline, geometric mean over channels",
            value=rounded(best["geometric_mean"]["value"]),
            unit="x",
            aim="< 1",
            peer="for every channel the best on the test windows of climatology with its seasons, persistence, and "
            "interpolation of departures from climatology",
            notes=(
                f"The geometric mean is {with_interval(best['geometric_mean'], '.2f')}, "
                f"the mean {with_interval(best['mean'], '.2f')}, {where}.",
                f"By channel, with the best baseline: {by_best}.",
            ),
            detail=detail,
        ),
    ]


def _gap(bench: Bench, subject: str, scores: dict[str, Any]) -> list[Figure]:
    table = scores[subject]
    nats, gap = table["nats_per_token"], table["gap"]
    others = ", ".join(f"{name} {found['gap']['value']:.3f}" for name, found in scores.items())
    beside = ", ".join(
        f"{name} {with_interval(gain, '+.3f')}"
        for name, found in scores.items() if (gain := found["gain_over_first"])
    )  # fmt: skip
    peer = nats["true"] + gap["value"]
    return _with_lower_end(
        bench,
        "narrate_vision_gap",
        "nats",
        gap,
        what="How much likelier captions are with their own window than with the best control",
        unit="nats per token",
        peer=PEERS[gap["control"]],
        peer_value=rounded(peer),
        peer_unit="nats per token",
        notes=(
            f"The gap is {with_interval(gap)}: {nats['true']:.3f} with the "
            f"true window, {nats['shuffled']:.3f} with the fields of another date, {nats['blind']:.3f} without soft "
            f"prompts; {table['captions']} captions of {table['days']} days in {table['spells']} spells.",
            f"By narrator: {others}.",
            f"Nats per token that others need less than the first: {beside}.",
        ),
        detail={"profile": PROFILE, "scores": scores},
    )


def _values(bench: Bench, subject: str, scores: dict[str, Any]) -> list[Figure]:
    table = scores[subject]
    gains = {"shuffled": table["value_accuracy_gain"], "climate": table["value_accuracy_gain_over_climate"]}
    known = {control: gain for control, gain in gains.items() if gain and gain["value"] is not None}
    if not known:
        raise RuntimeError("no number of the texts can be checked against the fields; there is nothing to compare")
    control = min(known, key=lambda name: known[name]["value"])
    true, other, gain = table["true"], table["shuffled"], known[control]
    by_kind = ", ".join(f"{kind} {share:.0%}" for kind, share in true["value_accuracy_of"].items())
    return _with_lower_end(
        bench,
        "narrate_value_gain",
        "share",
        gain,
        what="More numbers in the texts that are right than in those of the best control",
        unit="share",
        peer=PEERS[control],
        peer_value=rounded(true["value_accuracy"] - gain["value"]),
        peer_unit="share right",
        notes=(
            f"{true['value_accuracy']:.1%} of {true['values_checked']} numbers are right ({by_kind}); over "
            + ", over ".join(f"{PEERS[c]} {with_interval(g, '+.3f')}" for c, g in known.items())
            + f". The texts state {true['values_stated']} numbers, captions {table['values_in_captions']}.",
            f"BLEU {true['BLEU']:.1f} against {other['BLEU']:.1f} with the fields of another date, CIDEr-D "
            f"{true['CIDEr-D']:.2f} against {other['CIDEr-D']:.2f}, event F1 {true['event_f1']:.2f} against "
            f"{other['event_f1']:.2f}.",
        ),
        detail={"profile": PROFILE},
    )


def _with_lower_end(
    bench: Bench,
    name: str,
    suffix: str,
    difference: dict[str, float],
    *,
    what: str,
    notes: tuple[str, ...],
    **fields: Any,
) -> list[Figure]:
    """Return the figure of a difference to the best control, and that of the lower end of its interval."""
    return [
        bench.figure(
            f"{name}_{suffix}", what=what, value=rounded(difference["value"]), aim="> 0", notes=notes, **fields
        ),
        bench.figure(
            f"{name}_low_{suffix}",
            what=f"{what}: lower end of the 95 % interval",
            value=rounded(difference["low"]),
            aim="> 0",
            **fields,
        ),
    ]

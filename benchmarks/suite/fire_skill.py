"""How well EmberFormer foresees the next frame of a fire.

The wildfire pipeline on the shared archive: 320 simulated fires on a real landscape with real wind, split into bands
of land that share no pixel and no weather file. EmberFormer of the profile `compare` is trained with every seed and
judged on test fires that nothing was tuned on; thresholds come from validation fires. Its opponents are CopyLast and
two dilations over burnable fuel, one of which knows the wind, tuned on training fires; each gain is over the one that
is best at that measure. A gain is a difference of means over seeds, and its interval (95 %, in the notes) comes from
resampling squares of land with all test fires that begin there, the same for both sides, and seeds. Growth F1 counts
newly burnt pixels only; macro F1 is the mean over samples without the first step; the roll-out feeds predictions back
for three steps.

This takes most of an hour, so it runs only when named. It resumes in the same folder: `bench-work/fire_skill/assets`,
or where MILLRACE_BENCH_SKILL_ROOT says, which may be the root of an earlier `millrace run`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, interval, rounded
from benchmarks.figure import Figure
from benchmarks.fire_archives import SHARED, shared_archive
from benchmarks.pipelines import asset_root, run_pipeline
from configs.load import load_config, profile_path
from configs.wildfire import WildfireConfig
from flows.runs import RunRecord
from storage.assets import Asset
from tasks.fire.baselines import COPY_LAST, DILATION, WIND_DILATION

ON_REQUEST = True
ROOT = "MILLRACE_BENCH_SKILL_ROOT"
"""Environment variable with the root of the assets."""
PROFILE = "compare"
SUBJECT = "emberformer"
BASELINES = (COPY_LAST, DILATION, WIND_DILATION)

Scores = dict[str, Any]


AIMS = {
    "fire_growth_f1_gain": ("growth_f1", "Growth F1", ">= 0.25"),
    "fire_macro_f1_gain": ("macro_f1_later", "Macro F1 without the first step", ">= 0.08"),
    "fire_rollout_iou_gain": ("rollout_iou", "IoU of the last rolled-out step", ">= 0.20"),
}


def run(bench: Bench) -> list[Figure]:
    """Train and judge, or find what was made, and read the scores; `RuntimeError` where the archive is absent."""
    found = judge(bench, (SUBJECT,))
    return [
        gain(bench, found, name, other=_best(found.scores, measure), measure=measure, what=what, aim=aim)
        for name, (measure, what, aim) in AIMS.items()
    ]


def _best(scores: Scores, measure: str) -> str:
    """Return the baseline with the highest score."""
    return max(BASELINES, key=lambda name: _score(scores, name, measure)["value"] or 0.0)


@dataclass(frozen=True)
class Judged:
    """What the pipeline found."""

    scores: Scores
    """The content of `scores.json`."""
    detail: dict[str, Any]
    """Everything behind the figures, for their files."""


def judge(bench: Bench, models: Collection[str]) -> Judged:
    """Run the profile with some of its models; `RuntimeError` where the archive is absent."""
    config = _config(bench.quick)
    config = config.model_copy(update={"models": {name: config.models[name] for name in models}})
    root = asset_root(bench, ROOT)
    record, folders = run_pipeline(bench, "wildfire", config, root, PROFILE)
    scores = json.loads((folders["fire_evaluation_report"] / "scores.json").read_bytes())
    return Judged(scores, _detail(config, scores, record, folders))


def _config(quick: bool) -> WildfireConfig:
    """Return the profile on the shared archive; `quick` is one epoch with one seed on a few small generated fires."""
    path = profile_path("wildfire", PROFILE)
    if quick:
        names = load_config(WildfireConfig, path).models
        small = [
            "source={kind: sample, fires: 30, rows: 260, columns: 300, largest_crop: 72, max_frames: 6}",
            "seeds=[0]",
            *(f"models.{name}.training.{setting}" for name in names for setting in ("epochs=1", "steps_per_epoch=2")),
            "evaluation={bootstrap_resamples: 100, maps: 0, attention_fires: 0, latency_repeats: 0}",
        ]
        return load_config(WildfireConfig, path, [*small, "execution.wandb.mode=disabled"])
    archive = shared_archive()
    if archive is None:
        raise RuntimeError(
            f"the shared archive of 320 fires is absent; set {SHARED} to the folder that holds fire/zona60"
        )
    source = {"kind": "archive", "path": str(archive), "on_broken": "error"}
    return load_config(WildfireConfig, path, [f"source={json.dumps(source)}"])


def gain(bench: Bench, found: Judged, name: str, *, other: str, measure: str, what: str, aim: str) -> Figure:
    """Return the figure of EmberFormer's gain over another model or baseline; `RuntimeError` where it has no value."""
    scores = found.scores
    difference = _last(scores["differences"][SUBJECT][other][measure])
    ours, theirs = (_score(scores, model, measure) for model in (SUBJECT, other))
    if difference["value"] is None:
        raise RuntimeError(f"{measure} is not defined on these test fires; there is nothing to compare")
    test = scores["parts"]["test"]
    words = other.replace("_", "-").replace("unet-s", "UNetS")
    unit = "IoU" if "iou" in measure else "F1"
    return bench.figure(
        name,
        what=f"{what}, EmberFormer above {words}",
        value=rounded(difference["value"]),
        unit=unit,
        aim=aim,
        peer=f"{words}, the best of {', '.join(BASELINES)}" if other in BASELINES else f"{words}, same profile",
        peer_value=rounded(theirs["value"]),
        peer_unit=unit,
        notes=(
            f"EmberFormer {ours['value']:.3f}{_by_seed(scores, SUBJECT, measure)}, "
            f"{words} {theirs['value']:.3f}{_by_seed(scores, other, measure)}; "
            f"the gain's interval is {interval(difference, '+.3f')}.",
            f"{test['fires']} test fires, {test['samples']} samples.",
        ),
        detail={"measure": measure, "gain": difference, "emberformer": ours, other: theirs, **found.detail},
    )


def _last(found: Any) -> dict[str, Any]:
    """Return a score; of roll-outs, which have one per step, the last."""
    return found[-1] if isinstance(found, list) else found


def _score(scores: Scores, model: str, measure: str) -> dict[str, Any]:
    found = scores["models"][model]
    if measure.startswith("rollout_"):
        return _last(found["rollout"][measure.removeprefix("rollout_")])
    return found["test"][measure]


def _by_seed(scores: Scores, model: str, measure: str) -> str:
    """Return a model's scores by seed; nothing of what has no seeds, or of roll-outs, which are not kept by seed."""
    seeds = [run["test"].get(measure) for run in scores["models"][model]["runs"] if run["seed"] is not None]
    if not seeds or None in seeds:
        return ""
    return f" (by seed {', '.join(f'{value:.3f}' for value in seeds)})"


def _detail(config: WildfireConfig, scores: Scores, record: RunRecord, folders: dict[str, Path]) -> dict[str, Any]:
    """Return everything behind the figures: parts, every model's scores by seed, gains over all, and trainings."""
    measures = ("growth_f1", "growth_ap", "macro_f1_later", "f1", "iou")
    models = {
        name: {
            **{measure: _score(scores, name, measure) for measure in (*measures, "rollout_iou")},
            "runs": [
                {
                    "seed": run["seed"],
                    "threshold": run["threshold"],
                    "test": {measure: run["test"][measure] for measure in measures},
                    "validation_growth_f1": run["validation"]["growth_f1"],
                }
                for run in model["runs"]
            ],
        }
        for name, model in scores["models"].items()
    }
    trainings = {}
    for name, folder in folders.items():
        if (label := name.removeprefix("fire_training ")) != name:
            manifest = Asset(folder).manifest
            trainings[label] = {"stage_seconds": manifest.seconds, **manifest.counts, **manifest.metrics}
    gains = {
        name: {other: {m: found[m] for m in measures} for other, found in others.items()}
        for name, others in scores["differences"].items()
    }
    return {
        "profile": PROFILE,
        "config": config.model_dump(mode="json", exclude={"source", "execution"}),
        "source": config.source.kind,
        "parts": scores["parts"],
        "split": Asset(folders["fire_split"]).manifest.counts,
        "models": models,
        "differences": gains,
        "trainings": trainings,
        "stages": {stage.stage: {"status": stage.status, "seconds": stage.seconds} for stage in record.stages},
    }

"""Predicting the next frame of a fire.

The time from the token cache to a mask, for single fires of 400 x 400 pixels after 12 frames, on two threads:
unpacking the history, cutting and collating the sample, the network, and the threshold. The model is loaded and the
landscape is in memory; each fire is predicted once per process, so nothing of it is remembered.

EmberFormer is the one of the profile `archive` and looks at as many of the 12 frames as the profile says. It is
trained for a few steps on such fires, because the time of its front depends on how fast fire spreads. The other
decoders stand in its place with their default sizes, and UNetS is the one of the same profile; they are trained
alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import Bench, interleave, rounded
from benchmarks.figure import Figure
from benchmarks.fire_archives import build_cache, generate
from benchmarks.pipelines import session
from benchmarks.process import run_program
from configs.fire_sample import SampleFires
from configs.load import load_config, profile_path
from configs.training import Execution
from configs.wildfire import FireRecipe, WildfireConfig
from storage.assets import Asset

FRAMES = 12
THREADS = 2
SUBJECT = "emberformer"
DECODERS = ("unet", "segformer", "unet_resnet", "sam")

Model = dict[str, Any]


def run(bench: Bench) -> list[Figure]:
    """Measure the shipped EmberFormer, its other decoders, and UNetS."""
    side, fires, frames = (96, 8, 4) if bench.quick else (400, 50, FRAMES + 1)
    train, validation = (3, 2) if bench.quick else (8, 2)
    land, crop = (160, 80) if bench.quick else (600, 200)
    config = load_config(WildfireConfig, profile_path("wildfire", "archive"))
    bench.say(f"making {fires} fires of {frames} frames")
    source = SampleFires(
        fires=fires, rows=land, columns=land, largest_crop=crop, min_frames=frames, max_frames=frames
    )  # fmt: skip
    archive, root = generate(source, bench.work, side), bench.work / "assets"
    cache, split = build_cache(archive, root, config.tokens.patch, train=train, validation=validation)
    recipes = _recipes(config, quick=bench.quick)
    models = {}
    for name, recipe in recipes.items():
        bench.say(f"training {name} for {recipe.training.steps_per_epoch} steps")
        models[name] = _train(root, cache, split, recipe)
    rounds = 1 if bench.quick else 3
    bench.say(f"{rounds} rounds")
    task = {"cache": str(cache.folder), "split": str(split.folder), "threads": THREADS}
    predicts = {
        name: lambda model=model: run_program("predict_fires", model=str(model), **task)
        for name, model in models.items()
    }
    results = interleave(rounds, predicts)
    settings = {"side": side, "frames": frames - 1, "threads": THREADS, "patch": config.tokens.patch}
    return [_figure(bench, recipes, results, settings)]


def _recipes(config: WildfireConfig, *, quick: bool) -> dict[str, FireRecipe]:
    """Return the profile's EmberFormer, the same with every other decoder and with all frames, and UNetS."""
    base = config.models[SUBJECT].model_dump(mode="json")
    changes = {SUBJECT: base["model"]}
    if not quick:
        others = [kind for kind in DECODERS if kind != base["model"]["decoder"]["kind"]]
        changes |= {f"{SUBJECT}, {kind}": base["model"] | {"decoder": {"kind": kind}} for kind in others}
        changes[f"{SUBJECT}, all frames"] = base["model"] | {"max_history": FRAMES}
    values = {name: base | {"model": model} for name, model in changes.items()}
    if not quick:
        values[f"{SUBJECT}, all frames"] |= {"inputs": base["inputs"] | {"history": FRAMES}}
    trainings = {name: recipe for name, _, recipe in config.trainings()}
    values["unet_s"] = trainings["unet_s"].model_dump(mode="json")
    steps = {"epochs": 1, "steps_per_epoch": 1 if quick else 20, "warmup_steps": 0 if quick else 5}
    return {
        name: FireRecipe.model_validate(recipe | {"training": recipe["training"] | steps})
        for name, recipe in values.items()
    }


def _train(root: Path, cache: Asset, split: Asset, recipe: FireRecipe) -> Path:
    from tasks.fire.training import fire_training
    from tasks.stage import Label

    execution = Execution.model_validate({"wandb": {"mode": "disabled"}, "threads": THREADS, "device": "cpu"})
    with session(root):
        model = fire_training(
            cache=cache, split=split, recipe=recipe, seed=0, execution=execution, label=Label("benchmark")
        )
    return model.folder


def _figure(
    bench: Bench, recipes: dict[str, FireRecipe], results: dict[str, list[Model]], settings: dict[str, Any]
) -> Figure:
    times = {name: _percentiles([r["milliseconds"] for r in rounds]) for name, rounds in results.items()}
    ours, first = times[SUBJECT], results[SUBJECT][0]
    history = recipes[SUBJECT].inputs.history
    others = [f"{name} {found['p95']:.0f} ms" for name, found in times.items() if name != SUBJECT]
    return bench.figure(
        "fire_predict_p95_ms",
        what=f"Prediction of {settings['side']} x {settings['side']} pixels after {settings['frames']} frames, p95",
        value=ours["p95"],
        unit="ms",
        aim="<= 100",
        notes=(
            f"Half of them take at most {ours['p50']:.0f} ms; {len(first['milliseconds'])} fires in "
            f"{len(results[SUBJECT])} processes.",
            f"{first['parameters'] / 1e6:.2f} million parameters, the last {min(history, settings['frames'])} frames.",
            f"p95 of others: {', '.join(others)}.",
        ),
        detail={
            **settings,
            "percentiles": times,
            "models": {name: recipe.model.model_dump(mode="json") for name, recipe in recipes.items()},
            "history": {name: recipe.inputs.history for name, recipe in recipes.items()},
            "rounds": results,
        },
    )


def _percentiles(rounds: list[list[float]]) -> dict[str, float]:
    """Return medians over rounds of each round's p50 and p95."""
    p50, p95 = np.median([np.percentile(values, [50, 95]) for values in rounds], axis=0).tolist()
    return {"p50": rounded(p50), "p95": rounded(p95)}

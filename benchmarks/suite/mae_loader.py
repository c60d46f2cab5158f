"""Whether loading data holds the pretraining of SatSwinMAE back.

SatSwinMAE in its base size is trained on windows of 8 x 64 x 64 of a store with 17 channels, in one thread, batches
of 16. Either the loader reads, normalises and masks each batch, in one process beside the training, or the same number
of steps is done with batches that lie in memory already. The figure is the ratio of windows per second.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.pipelines import session
from benchmarks.process import Program
from configs.sat_swin_mae import SwinMaeConfig
from configs.training import TrainingConfig
from configs.weather_lm import MaeRecipe
from configs.weather_pipeline import WeatherConfig

BATCH = 16
CHANNELS: list[Any] = [
    "u10", "v10", "t2m", "d2m", "msl", {"variable": "tp", "accumulation": "hourly"},
    {"variable": "ssrd", "accumulation": "hourly", "rate": True},
    {"variable": "t", "levels": [850, 500]}, {"variable": "r", "levels": [850, 500]},
    {"variable": "u", "levels": [850, 500]}, {"variable": "v", "levels": [850, 500]},
    {"variable": "z", "levels": [850, 500]},
]  # fmt: skip


def run(bench: Bench) -> list[Figure]:
    """Train in turn from the loader and from memory."""
    days, resolution = (4, 0.5) if bench.quick else (20, 0.25)
    bench.say(f"making a store of {days} days at {resolution} degrees")
    task = _data(bench, days, resolution)
    steps, rounds = (2, 1) if bench.quick else (12, 7)
    with Program("mae_trainer", task) as program:
        parameters = program.answer()["parameters"]
        bench.say(f"{rounds} rounds of {steps} steps each way")
        feeds = {fed: lambda fed=fed: program.ask({"fed": fed, "steps": steps}) for fed in ("loader", "memory")}
        interleave(1, feeds)
        results = interleave(rounds, feeds)
    ratio = {
        clock: median_ratio([r[clock] for r in results["memory"]], [r[clock] for r in results["loader"]])
        for clock in ("wall", "cpu")
    }
    windows = {fed: BATCH * steps / sorted(r["wall"] for r in found)[len(found) // 2] for fed, found in results.items()}
    return [
        bench.figure(
            "mae_loader_efficiency",
            what="Windows per second of a pretraining that loads its data, over those of one with batches in memory",
            value=rounded(ratio["wall"]),
            unit="x",
            aim=">= 0.9",
            peer="the same training with batches in memory",
            peer_value=rounded(windows["memory"]),
            peer_unit="windows/s",
            notes=(
                f"{windows['loader']:.1f} windows/s with the loader in one process, {windows['memory']:.1f} without; "
                f"SatSwinMAE with {parameters:,} parameters in one thread.",
                f"In CPU time of the training process alone the ratio is {ratio['cpu']:.3f}.",
            ),
            detail={"rounds": results, "steps": steps, "batch": BATCH, "parameters": parameters},
        )
    ]


def _data(bench: Bench, days: int, resolution: float) -> dict[str, Any]:
    """Make a window store and a training set; return what the program is called with."""
    from flows.weather import weather

    config = WeatherConfig.model_validate(
        {
            "source": {"kind": "sample", "days": days, "resolution": resolution},
            "recipe": {"variables": CHANNELS},
            "windows": {"time": 8, "height": 64, "width": 64, "stride_time": 4, "stride_height": 32, "stride_width": 32,
                        "cover_edges": True},
        }
    )  # fmt: skip
    with session(bench.work / "assets") as store:
        training_set = weather(config)
    (windows,) = store.assets("era5_windows")
    training = TrainingConfig(epochs=1, steps_per_epoch=10_000, batch_size=BATCH, learning_rates={"all": 1e-4})
    return {
        "store": str(windows.folder),
        "training_set": str(training_set.folder),
        "recipe": MaeRecipe(model=SwinMaeConfig(), training=training).model_dump(mode="json"),
        "threads": 1,
        "loader_workers": 1,
        "scratch": str(bench.work / "scratch"),
    }

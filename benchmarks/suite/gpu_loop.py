"""How busy the training loop keeps a GPU.

SatSwinMAE in its base size (bf16, 64 windows of 8 x 64 x 64 a step), EmberFormer of the profile `archive_gpu` (bf16, 16
windows of fires a step) and a narrator on a Llama of 160 M parameters (bf16, 32 captions a step) are trained in two
ways by turns: by the project's loop, with processes that read, collate and weigh batches, and by a bare loop (forward,
backward, fused AdamW) of the same model over batches that lie on the device already. A figure is the ratio of their
speeds, the median over rounds. It needs a GPU, so it runs only when named (`make gpu`); `--quick` runs on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.pipelines import session
from benchmarks.process import Program
from benchmarks.suite.mae_loader import CHANNELS
from configs.fire_sample import SampleFires
from configs.load import load_config, profile_path
from configs.training import Execution, WandbConfig
from configs.weather import SampleSource
from configs.weather_pipeline import WeatherConfig
from configs.wildfire import WildfireConfig
from storage.hashing import jsonable
from tasks.captions.gather import weather_captions
from tasks.era5.ingest import era5_windows
from tasks.era5.prepare import era5_training_set
from tasks.era5.scan import era5_catalog
from tasks.fire.archive import archive_names
from tasks.fire.cache import fire_cache
from tasks.fire.records import fire_records
from tasks.fire.split import fire_split
from tasks.mae.training import mae_training
from tasks.narration.language import language_training
from tasks.samples.fire import fire_sample
from tasks.samples.generate import era5_sample
from tasks.samples.weather_regions import REGIONS
from tasks.stage import Label

ON_REQUEST = True
WORKERS = 8
LLAMA = {"hidden": 1024, "layers": 12, "heads": 16, "kv_heads": 4, "intermediate": 2816}


@dataclass(frozen=True)
class Subject:
    """A training that is timed."""

    name: str
    what: str
    aim: str
    task: dict[str, Any]


def run(bench: Bench) -> list[Figure]:
    """Time each training both ways; `RuntimeError` where there is no GPU."""
    if not (bench.quick or torch.cuda.is_available()):
        raise RuntimeError("there is no GPU here; --quick shows on any machine that the benchmark works")
    return [_measure(bench, subject) for subject in (*_weather(bench), _fire(bench))]


def _measure(bench: Bench, subject: Subject) -> Figure:
    steps, rounds = (2, 1) if bench.quick else (60, 7)
    device = {"device": "cpu", "loader_workers": 0} if bench.quick else {"device": "cuda", "loader_workers": WORKERS}
    scratch = str(bench.work / subject.name)
    with Program("loop_trainer", {**subject.task, **device, "scratch": scratch}) as program:
        facts = program.answer()
        bench.say(f"{subject.name}: {rounds} rounds of {steps} steps each way, {facts['parameters']:,} parameters")
        loops = {loop: lambda loop=loop: program.ask({"loop": loop, "steps": steps}) for loop in ("ours", "bare")}
        interleave(1, loops)
        seconds = interleave(rounds, loops)
        memory = program.ask({"loop": "memory"})
    speed = {loop: steps / sorted(found)[len(found) // 2] for loop, found in seconds.items()}
    card = facts["machine"].get("gpu", "a CPU")
    return bench.figure(
        f"gpu_loop_efficiency_{subject.name}",
        what=f"Steps per second of {subject.what}, over those of a bare loop with batches on the device",
        value=rounded(median_ratio(seconds["bare"], seconds["ours"])),
        unit="x",
        aim=subject.aim,
        peer="forward, backward and fused AdamW over batches that lie on the device",
        peer_value=rounded(speed["bare"]),
        peer_unit="steps/s",
        notes=(
            f"On {card}: {speed['ours']:.2f} steps/s, {speed['ours'] * facts['batch']:.0f} samples/s, "
            f"{memory:.1f} GB at the most; {facts['parameters']:,} parameters.",
        ),
        detail={"rounds": seconds, "steps": steps, "memory_gb": memory, **facts},
    )


def _weather(bench: Bench) -> list[Subject]:
    """Make windows and captions, and a vision and a language model to put a narrator together from."""
    config = _weather_config(bench.quick)
    assert config.mae is not None
    assert config.captions is not None
    assert isinstance(config.source, SampleSource)
    execution = Execution(device="cpu", wandb=WandbConfig(mode="disabled"))
    recipe, narrator = config.languages["llama"], config.narrators["llama"]
    bench.say("making windows, captions, and models that are trained for one step")
    with session(bench.work / "assets"):
        raw = era5_sample(source=config.source)
        catalog = era5_catalog(raw=raw, on_bad_file="error")
        windows = era5_windows(raw=raw, catalog=catalog, recipe=config.recipe, layout=config.store)
        training_set = era5_training_set(store=windows, windows=config.windows, splits=config.splits)
        captions = weather_captions(raw=raw, names={}, columns={}, boxes=REGIONS, label=Label("windows"))
        data = {"store": windows, "training_set": training_set}
        mae = mae_training(**data, recipe=config.mae, execution=execution)
        language = language_training(
            captions=captions, training_set=training_set, recipe=recipe, execution=execution, label=Label("llama")
        )
    folders = {name: str(asset.folder) for name, asset in data.items()}
    of_narrator = {"captions": captions, "mae": mae, "language": language}
    return [
        Subject(
            "mae",
            "the pretraining of SatSwinMAE in its base size",
            ">= 0.9",
            _task(
                "tasks.mae.objective:MaeObjective", {**folders, "recipe": config.mae}, 4 if bench.quick else 64, "all"
            ),
        ),
        Subject(
            "narrator",
            "the training of a narrator",
            ">= 0.9",
            _task(
                "tasks.narration.objective:NarratorObjective",
                {
                    **folders,
                    **{name: str(asset.folder) for name, asset in of_narrator.items()},
                    "join": config.captions.join,
                    "language_recipe": recipe,
                    "recipe": narrator,
                },
                4 if bench.quick else 32,
                "adapter",
            ),
        ),
    ]


def _weather_config(quick: bool) -> WeatherConfig:
    side, once = (32 if quick else 64), {"epochs": 1, "steps_per_epoch": 1, "batch_size": 4}
    sizes = {"hidden": 32, "layers": 1, "heads": 2, "kv_heads": 2, "intermediate": 32} if quick else LLAMA
    return WeatherConfig.model_validate(
        {
            "source": {"kind": "sample", "days": 24 if quick else 40, "step_hours": 3,
                       "resolution": 0.5 if quick else 0.25},
            "recipe": {"variables": CHANNELS},
            "windows": {"time": 8, "height": side, "width": side, "stride_time": 4, "stride_height": side // 2,
                        "stride_width": side // 2, "cover_edges": True},
            "captions": {"join": {"min_day_share": 1.0}},
            "mae": {"training": {**once, "learning_rates": {"all": 1e-4}}},
            "languages": {"llama": {
                "model": {"kind": "llama", "pretrained": None, "sizes": {**sizes, "positions": 512}},
                "text": {"held_out": 0.2, "training": {**once, "learning_rates": {"all": 1e-4}}}}},
            "narrators": {"llama": {"language": "llama", "training": {**once, "learning_rates": {"adapter": 1e-4}}}},
        }
    )  # fmt: skip


def _fire(bench: Bench) -> Subject:
    """Make a token cache of generated fires, and train what `archive_gpu` trains."""
    profile = load_config(WildfireConfig, profile_path("wildfire", "archive_gpu"))
    recipe = profile.models["emberformer"]
    bench.say("making a cache of fires")
    with session(bench.work / "assets"):
        raw = fire_sample(source=SampleFires(fires=24 if bench.quick else 120))
        records = fire_records(
            raw=raw, names=archive_names(raw), decoding=profile.decoding, tokens=profile.tokens, on_broken="error"
        )
        cache = fire_cache(records=records)
        split = fire_split(cache=cache, splits=profile.splits)
    config = {"cache": str(cache.folder), "split": str(split.folder), "recipe": recipe}
    batch = 2 if bench.quick else recipe.training.batch_size
    task = _task("tasks.fire.objective:FireObjective", config, batch, *recipe.training.learning_rates)
    return Subject("fire", "the training of EmberFormer", ">= 0.8", task)


def _task(objective: str, config: dict[str, Any], batch: int, *groups: str) -> dict[str, Any]:
    """Return what the program is called with: a training in bf16 that could go on for ever."""
    rates = dict.fromkeys(groups, 1e-6)
    training = {
        "epochs": 1,
        "steps_per_epoch": 10**8,
        "batch_size": batch,
        "learning_rates": rates,
        "history_every": 10,
    }
    return {"objective": objective, "config": jsonable(config), "training": {**training, "precision": "bf16"}}

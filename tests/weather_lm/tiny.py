"""The whole weather pipeline at the smallest sizes that have every part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.weather_pipeline import WeatherConfig
from flows.weather import weather
from storage.assets import Asset, AssetStore
from tasks.narration.dataset import PairFolders
from tasks.progress import Silent
from tasks.session import Session
from tasks.units import Workers
from tests.once import only

TRAINING = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 4}
CONFIG: dict[str, Any] = {
    "source": {"kind": "sample", "days": 30, "step_hours": 6, "resolution": 2.0, "levels": []},
    "recipe": {"variables": ["u10", "v10", "t2m", "msl", {"variable": "tp", "accumulation": "hourly"}]},
    "store": {"chunk_time": 4, "chunk_space": 8, "shard_time": 24},
    "windows": {"time": 4, "height": 8, "width": 8, "stride_time": 4, "stride_height": 4, "stride_width": 4,
                "cover_edges": True},
    "splits": {"validation_share": 0.2, "test_share": 0.2, "cycles": 2},
    "captions": {"join": {"min_day_share": 1.0}},
    "mae": {
        "model": {"patch": [2, 2, 2], "window": [2, 2, 2], "width": 12, "depths": [1, 1], "heads": [2, 2],
                  "decoder_width": 12, "decoder_heads": 2},
        "validation_windows": 8, "report_windows": 4,
        "training": {**TRAINING, "learning_rates": {"all": 1e-3}},
    },
    "languages": {
        "small": {
            "model": {"kind": "llama", "pretrained": None, "sizes": {
                "hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "intermediate": 16, "positions": 192}},
            "text": {"vocabulary": 400, "length": 64, "held_out": 0.2,
                     "training": {**TRAINING, "learning_rates": {"all": 1e-3}}},
        }
    },
    "narrators": {
        "adapter": {
            "language": "small", "prefixer": {"tokens": 4, "heads": 2}, "validation_samples": 8,
            "training": {**TRAINING, "learning_rates": {"adapter": 1e-3}},
        }
    },
    "ablations": {"climate": {"of": "adapter", "set": {"prefixer.pooling": "mean", "vision": False}}},
    "packed": {"four_bits": {"narrator": "adapter", "recipe": {
        "ternary": [], "int4": ["language.hf.model.layers.*"], "int8": ["encoder.*"], "embedding": "int4"}}},
    "evaluation": {"samples": 8, "texts": 4, "max_new_tokens": 8, "resamples": 100, "pictures": 2},
    "execution": {"device": "cpu", "threads": 1, "wandb": {"mode": "disabled"}},
}  # fmt: skip


def build(root: Path, config: dict[str, Any]) -> tuple[AssetStore, Asset]:
    """Run the pipeline; return its assets and the last one."""
    store = AssetStore(root)
    with Session(store, Silent(), workers=Workers("inline")).active():
        return store, weather(WeatherConfig.model_validate(config))


def folders(store: AssetStore) -> PairFolders:
    """Return where windows and captions lie."""
    kinds = ("era5_windows", "era5_training_set", "weather_captions")
    return PairFolders(*(only(store, kind).folder for kind in kinds))

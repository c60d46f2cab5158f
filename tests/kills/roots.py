"""Small pipelines that have every stage, and what must come of a run however it was disturbed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from flows.runs import load_runs
from storage.assets import AssetStore, verify
from storage.files import is_temporary
from tests.command import millrace
from tests.fire.test_pipeline import PROFILE as FIRE
from tests.trm_vlm.tiny import CONFIG as TRM_VLM
from tests.vision_language.tiny import CONFIG as VLM
from tests.weather_lm.tiny import CONFIG as WEATHER

LLAMA = WEATHER["languages"]["small"]["model"]
TEXTS = {"kind": "sample", "weather": {"start": "2023-01-26", "days": 12, "step_hours": 6, "resolution": 7.5}}
"""Of a language model that is trained on other generated weather."""
WEATHER_OF_TWO_MONTHS = WEATHER | {
    "source": WEATHER["source"] | {"start": "2024-01-24", "days": 16, "resolution": 3.75},
    "splits": WEATHER["splits"] | {"cycles": 1},
    "languages": WEATHER["languages"]
    | {"other": {"model": LLAMA, "text": WEATHER["languages"]["small"]["text"] | {"text": TEXTS}}},
    "ablations": {"other": {"of": "adapter", "set": {"language": "other"}}},
    "mae_int8": {"windows": 2},
    "questions": {
        "recipe": {"windows": 20},
        "answering": TRM_VLM["answering"]
        | {"decoders": {"plain": TRM_VLM["answering"]["decoders"]["plain"]}, "packed": {}},
        "evaluation": TRM_VLM["evaluation"],
    },
}
MODELS = ("captions", "mae", "mae_int8", "languages", "narrators", "ablations", "packed", "evaluation", "questions")
FIRE_IN_SHORT: dict[str, Any] = FIRE | {
    "source": FIRE["source"] | {"fires": 12, "max_frames": 4},
    "models": {"emberformer": FIRE["models"]["emberformer"] | {
        "training": FIRE["models"]["emberformer"]["training"] | {"epochs": 1, "steps_per_epoch": 3}}},
    "quantised": {"small": {"model": "emberformer", "calibration": 2}},
}  # fmt: skip
IMAGES: dict[str, Any] = {
    "source": {"kind": "sample", "images": 60, "side": 64, "misbehaving_share": 0.05},
    "images_per_shard": 30,
    "image": {"side": 48},
    "fetching": {"deadline_seconds": 2, "backoff_seconds": 0.05, "max_megabytes": 2},
    "splits": {"validation_share": 0.2, "test_share": 0.2},
}
PROFILES: dict[str, tuple[str, dict[str, Any]]] = {
    "weather": ("weather", WEATHER_OF_TWO_MONTHS),
    "wildfire": ("wildfire", FIRE_IN_SHORT),
    "microvlm": ("microvlm", IMAGES | {part: VLM[part] for part in ("vlm", "evaluation", "execution")}),
    "trm_vlm": (
        "trm_vlm",
        IMAGES
        | {"source": IMAGES["source"] | {"layout": "pixmo_qa", "images": 40}}
        | {part: TRM_VLM[part] for part in ("alignment", "answering", "evaluation", "execution")},
    ),
}
DATA = {name: value for name, value in WEATHER_OF_TWO_MONTHS.items() if name not in MODELS} | {"mae": None}
SHORT: dict[str, tuple[str, dict[str, Any]]] = {
    "windows": ("weather", DATA | {"source": DATA["source"] | {"start": "2024-01-27", "days": 10}}),
    "fires": ("wildfire", FIRE_IN_SHORT | {"models": {}, "quantised": {}}),
}
"""Data stages alone, for a look that takes seconds."""


class Calm:
    """A pipeline's small run that nobody disturbed, and copies of it that lack a stage."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.pipeline, settings = (PROFILES | SHORT)[name]
        self.root = folder / "calm"
        self.profile = folder / "profile.yaml"
        if not self.root.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self.profile.write_text(yaml.safe_dump(settings))
            result = millrace(*self.command("inline"), root=folder / "building")
            assert result.returncode == 0, result.stderr + result.stdout
            (folder / "building").replace(self.root)
        self.assets = fingerprints(self.root)
        self.stages = {stage.stage: stage.asset for run in load_runs(AssetStore(self.root)) for stage in run.stages}
        """Assets by the titles of stages."""

    def command(self, engine: str, workers: str = "inline") -> list[str]:
        """Return the arguments of the run."""
        return ["run", self.pipeline, "-p", str(self.profile), "--engine", engine, "--workers", workers]

    def copy(self, root: Path, without: str) -> None:
        """Make a root that has all assets but one; they share their files, which nobody ever writes to."""
        for asset in self.assets.keys() - {without}:
            shutil.copytree(self.root / asset, root / asset, copy_function=os.link)
        shutil.copy(self.root / ".code.json", root)


def fingerprints(root: Path) -> dict[str, str]:
    """Return the fingerprint of every asset by its kind and key."""
    return {f"{asset.kind}/{asset.key}": asset.fingerprint for asset in AssetStore(root).assets()}


def faults(root: Path, calm: Calm, asset: str) -> list[str]:
    """Say in what a root differs from the calm one; of an asset that was made anew every byte is compared."""
    store = AssetStore(root)
    found = fingerprints(root)
    differing = sorted(name for name in found.keys() | calm.assets if found.get(name) != calm.assets.get(name))
    damages = [f"{a.kind}/{a.key}: {d}" for a in store.assets() for d in store.verify(a)]
    deep = [f"{asset}: {damage}" for damage in verify(store.asset(*asset.split("/")), deep=True)]
    hidden = [f"{a.kind}/{a.key}/{f.path} is temporary" for a in store.assets() for f in a.manifest.files
              if is_temporary(f.path)]  # fmt: skip
    left = [str(path.relative_to(root)) for path in (*store.workspaces(), *root.glob("[!.]*/.*"))]
    return [
        *(f"{name} differs" for name in differing), *damages, *deep, *hidden, *(f"{name} is left over" for name in left)
    ]  # fmt: skip

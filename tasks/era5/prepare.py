"""The stage that makes a store ready for training: statistics, splits, and which windows can be used."""

from __future__ import annotations

from typing import Any

from configs.weather import SplitConfig, WindowConfig
from storage.assets import Asset
from storage.training_set import TrainingSet
from storage.window_store import WindowStore
from tasks.era5.training_set import build_training_set
from tasks.stage import Job, StageResult, stage


@stage("era5_training_set")
def era5_training_set(job: Job, *, store: Asset, windows: WindowConfig, splits: SplitConfig) -> StageResult:
    """Find the usable windows of every split, and each channel's statistics over the training period."""
    training_set = build_training_set(WindowStore.open(store.folder), windows, splits)
    training_set.save(job.folder)
    for warning in training_set.warnings:
        job.message(warning)
    return StageResult(counts=_counts(training_set))


def _counts(training_set: TrainingSet) -> dict[str, Any]:
    """Return how many windows there are, how many were left out, and why."""
    blocks = [block for split in training_set.splits for block in training_set.blocks(split)]
    return {
        "windows_per_step": training_set.grid.per_time,
        **{f"windows_{split}": training_set.length(split) for split in training_set.splits},
        "left_out_missing_steps": sum(block.missing for block in blocks),
        "left_out_too_many_nan": sum(block.too_many_nan for block in blocks),
        "left_out_between_splits": training_set.outside,
    }

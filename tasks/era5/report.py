"""The stage that draws what a store and its training set hold."""

from __future__ import annotations

from collections.abc import Sequence

from storage.assets import Asset
from tasks.stage import Job, StageResult, stage


@stage("era5_report")
def era5_report(job: Job, *, store: Asset, training_set: Asset, channels: Sequence[str]) -> StageResult:
    """Draw a coverage chart, maps of a few windows, and a table of statistics; without `channels`, maps of a choice."""
    from storage.training_set import TrainingSet  # plans do without matplotlib and torch
    from storage.window_store import WindowStore
    from tasks.era5.pictures import choose_channels, draw_coverage, draw_windows, write_statistics
    from tasks.figures import save_figure

    windows = WindowStore.open(store.folder)
    prepared = TrainingSet.load(training_set.folder)
    mapped = choose_channels(windows.channels, channels)
    save_figure(draw_windows(windows, store.folder, training_set.folder, mapped), job.folder / "windows.png")
    save_figure(draw_coverage(windows, prepared), job.folder / "coverage.png")
    write_statistics(windows, prepared, job.folder / "statistics.csv")
    return StageResult(
        counts={"channels": len(windows.channels), "channels_mapped": len(mapped)},
        pictures=["windows.png", "coverage.png"],
    )

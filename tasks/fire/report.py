"""The stage that draws what a token cache and its split hold."""

from __future__ import annotations

from storage.assets import Asset
from tasks.stage import Job, StageResult, stage


@stage("fire_data_report")
def fire_data_report(job: Job, *, cache: Asset, split: Asset) -> StageResult:
    """Draw a few fires with their tokens, the lengths of fires, and a map of the parts; write a table of bands."""
    from storage.fire_split import FireSplit  # plans do without matplotlib
    from storage.token_cache import TokenCache
    from tasks.fire.data_pictures import draw_fires, draw_lengths, draw_map, save_figure, write_bands

    fires = TokenCache.open(cache.folder)
    parts = FireSplit.load(split.folder)
    save_figure(draw_fires(fires), job.folder / "fires.png")
    save_figure(draw_lengths(fires, parts), job.folder / "lengths.png")
    save_figure(draw_map(fires, parts), job.folder / "map.png")
    write_bands(fires, job.folder / "bands.csv")
    short = sum(steps <= 6 for steps in fires.steps)
    return StageResult(
        counts={"fires": len(fires), "samples": sum(fires.steps) - len(fires)},
        metrics={"share_with_at_most_6_frames": round(short / len(fires), 4)},
        pictures=["fires.png", "lengths.png", "map.png"],
    )

"""The stage that draws what a token cache and its split hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.assets import Asset
from tasks.stage import Job, StageResult, stage

if TYPE_CHECKING:
    from storage.token_cache import TokenCache


@stage("fire_data_report")
def fire_data_report(job: Job, *, cache: Asset, split: Asset) -> StageResult:
    """Draw a few fires with their tokens, the lengths of fires, and a map of the parts; write a table of bands."""
    from storage.fire_split import FireSplit  # plans do without matplotlib
    from storage.token_cache import TokenCache
    from tasks.figures import save_figure
    from tasks.fire.data_pictures import draw_fires, draw_lengths, draw_map, write_bands

    fires = TokenCache.open(cache.folder)
    parts = FireSplit.load(split.folder)
    save_figure(draw_fires(fires), job.folder / "fires.png")
    save_figure(draw_lengths(fires, parts), job.folder / "lengths.png")
    save_figure(draw_map(fires, parts), job.folder / "map.png")
    write_bands(fires, job.folder / "bands.csv")
    impossible = sum(_burnt_against_the_rules(fires, fire) for fire in range(len(fires)))
    if impossible:
        job.message(
            f"{impossible} pixels burn on fuel codes that decoding.unburnable lists; no model or dilation will ever "
            "predict them: correct the list"
        )
    short = sum(steps <= 6 for steps in fires.steps)
    return StageResult(
        counts={
            "fires": len(fires),
            "samples": sum(fires.steps) - len(fires),
            "burnt_though_unburnable": impossible,
        },
        metrics={"share_with_at_most_6_frames": round(short / len(fires), 4)},
        pictures=["fires.png", "lengths.png", "map.png"],
    )


def _burnt_against_the_rules(fires: TokenCache, fire: int) -> int:
    """Return how many pixels burn by the fire's end though their fuel code is declared unburnable."""
    burnt = fires.target(fire, fires.steps[fire] - 1) & fires.domain(fire)
    return int((burnt & ~fires.burnable[fires.crops[fire].pixels]).sum())

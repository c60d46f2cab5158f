"""The stage that judges an image encoder on the test split."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from storage.assets import Asset
from storage.files import write_atomic
from tasks.stage import Job, StageResult, stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

MOST = 5000
"""Images that are retrieved among each other."""


@stage("alignment_report")
def alignment_report(job: Job, *, shards: Asset, index: Asset, encoder: Asset) -> StageResult:
    """Find texts by images and images by texts, with all channels and with fewer; draw that, and the training."""
    from tasks.alignment.objective import shown_and_told
    from tasks.alignment.released import AlignedRelease
    from tasks.alignment.samples import AlignedImages
    from tasks.figures import save_figure
    from tasks.training.curves import draw_curves
    from tasks.training.history import read_history
    from tasks.training.share import Share

    release = AlignedRelease.from_release(encoder.folder)
    network = release.network
    source = AlignedImages(shards.folder, index.folder, "test", network.encoder.square, release.ids, most=MOST)
    if len(source) < 2:
        raise ValueError("the test split has fewer than 2 images; raise splits.test_share")
    seen = shown_and_told(network, source, Share())
    widths = [seen.images.shape[-1], *release.recipe.widths]
    table: dict[str, Any] = {
        "images": len(source),
        **seen.ranks(),
        "by_width": {width: _found(seen.scores(width), seen.same) for width in widths},
    }
    write_atomic(job.folder / "retrieval.json", json.dumps(table, indent=1))
    save_figure(_draw(table["by_width"]), job.folder / "retrieval.png")
    save_figure(draw_curves(read_history(encoder.folder)), job.folder / "curves.png")
    whole = table["by_width"][widths[0]]
    return StageResult(
        counts={"images": len(source)},
        metrics={
            **{name: whole[name] for name in ("text_at_1", "image_at_1", "text_map", "chance_at_1")},
            "r1_gain": whole["text_at_1"] / whole["chance_at_1"],
        },
        pictures=["retrieval.png", "curves.png"],
    )


def _found(scores: Tensor, same: Tensor) -> dict[str, float]:
    from tasks.retrieval import mean_average_precision, recall_at

    return recall_at(scores) | mean_average_precision(scores, same)


def _draw(by_width: dict[int, dict[str, float]]) -> Figure:
    """Draw recall at 1, 5 and 10, both ways, against the number of channels."""
    from tasks.figures import subplots

    figure, axis = subplots(figsize=(7, 4), layout="constrained")
    widths = sorted(by_width)
    for depth in (1, 5, 10):
        for way, style in (("text", "-o"), ("image", "--s")):
            values = [by_width[width][f"{way}_at_{depth}"] for width in widths]
            axis.plot(widths, values, style, label=f"{way} found, R@{depth}", markersize=4)
    axis.axhline(by_width[widths[0]]["chance_at_1"], color="grey", linewidth=0.8, label="chance, R@1")
    axis.set_xscale("log", base=2)
    axis.set(xlabel="channels that are compared", ylabel="share found", ylim=(0, 1), xticks=widths)
    axis.set_xticklabels([str(width) for width in widths])
    axis.legend(fontsize=7)
    return figure

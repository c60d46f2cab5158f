"""Maps of predictions: what burnt, what burns next, what was predicted, and where that was wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from tasks.figures import subplots
from tasks.fire import palette
from tasks.fire.evaluation import Judged, fires_of_different_size, load_batch
from tasks.fire.rollout import Probability
from tasks.fire.scores import Mask

if TYPE_CHECKING:
    from tasks.fire.dataset import FireDataset

Picture = NDArray[np.float64]


def paint(shape: tuple[int, int], layers: Sequence[tuple[Mask, str]]) -> Picture:
    """Return an RGB picture (H, W, 3): later layers cover earlier ones, over pixels outside the domain."""
    picture = np.empty((*shape, 3))
    picture[:] = to_rgb(palette.OUTSIDE)
    for mask, colour in layers:
        picture[mask] = to_rgb(colour)
    return picture


def state_picture(last: Mask, target: Mask, domain: Mask) -> Picture:
    """Return what had burnt and what burns next."""
    growth = target & ~last
    return paint(
        last.shape, [(domain, palette.UNBURNT), (last & domain, palette.BURNT), (growth & domain, palette.GROWTH)]
    )


def error_picture(predicted: Mask, last: Mask, target: Mask, domain: Mask) -> Picture:
    """Return hits, misses and false alarms among growth pixels."""
    open_ = domain & ~last
    return paint(
        last.shape,
        [
            (domain, palette.UNBURNT),
            (last & domain, palette.BURNT),
            (open_ & predicted & target, palette.HIT),
            (open_ & ~predicted & target, palette.MISS),
            (open_ & predicted & ~target, palette.FALSE_ALARM),
        ],
    )


def probability_picture(probability: NDArray[Any], last: Mask, domain: Mask) -> Picture:
    """Return the probability of growth pixels in the colours of `palette.PROBABILITY`."""
    colours = colormaps[palette.PROBABILITY](np.clip(probability, 0, 1))[..., :3]
    colours[last] = to_rgb(palette.BURNT)
    colours[~domain] = to_rgb(palette.OUTSIDE)
    return np.asarray(colours, np.float64)


LEGEND = {
    "burnt before": palette.BURNT,
    "burns next": palette.GROWTH,
    "hit": palette.HIT,
    "missed": palette.MISS,
    "false alarm": palette.FALSE_ALARM,
    "outside": palette.OUTSIDE,
}


def draw_predictions(main: Judged, baseline: Judged, count: int, names: Sequence[str] | None = None) -> Figure | None:
    """Draw test fires from small to large: truth, the main model's probability and errors, the baseline's errors.

    Args:
        main: the model that is shown.
        baseline: what it is compared with.
        count: most fires.
        names: name of every fire of the cache; its number when absent.
    """
    chosen = fires_of_different_size(main, count)
    if not chosen:
        return None
    figure, rows = subplots(len(chosen), 4, figsize=(11, 2.75 * len(chosen) + 0.6), squeeze=False, layout="constrained")
    titles = [
        "last frame and truth",
        f"{main.contender.name}: probability",
        main.contender.name,
        baseline.contender.name,
    ]
    for axes, (fire, step) in zip(rows, chosen, strict=True):
        domain, last, target, probability = _predict(main, fire, step)
        other = _predict(baseline, fire, step)[3]
        pictures = [
            state_picture(last, target, domain),
            probability_picture(probability, last, domain),
            error_picture(probability >= main.threshold, last, target, domain),
            error_picture(other >= baseline.threshold, last, target, domain),
        ]
        for column, picture in zip(axes, pictures, strict=True):
            _show(column, picture)
        name = names[fire] if names else f"fire {fire}"
        axes[0].set_ylabel(f"{name}\nstep {step} to {step + 1}", fontsize=8)
        for column, predicted in ((axes[2], probability >= main.threshold), (axes[3], other >= baseline.threshold)):
            column.set_xlabel(_growth_f1(predicted, last, target, domain), fontsize=8)
    for axes, title in zip(rows[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    handles = [Patch(facecolor=colour, edgecolor="#777777", linewidth=0.5) for colour in LEGEND.values()]
    figure.legend(handles, LEGEND, loc="outside lower center", ncols=len(LEGEND), fontsize=8, frameon=False)
    scale = ScalarMappable(Normalize(0, 1), palette.PROBABILITY)
    bar = figure.colorbar(scale, ax=rows.ravel().tolist(), shrink=0.5, pad=0.01, aspect=30, panchor=False)
    bar.set_label("probability", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def draw_samples(predict: Probability, samples: FireDataset, indices: Sequence[int], threshold: float = 0.5) -> Figure:
    """Draw a few samples: truth, probability and errors; for a look at a model in training."""
    figure, rows = subplots(len(indices), 3, figsize=(8.5, 2.75 * len(indices)), squeeze=False, layout="constrained")
    for axes, index in zip(rows, indices, strict=True):
        domain, last, target, probability = _predicted(predict, samples, index)
        pictures = [
            state_picture(last, target, domain),
            probability_picture(probability, last, domain),
            error_picture(probability >= threshold, last, target, domain),
        ]
        for column, picture in zip(axes, pictures, strict=True):
            _show(column, picture)
        fire, step = samples.samples[index]
        axes[0].set_ylabel(f"{samples.cache.names[fire]}\nstep {step} to {step + 1}", fontsize=8)
        axes[2].set_xlabel(_growth_f1(probability >= threshold, last, target, domain), fontsize=8)
    for axes, title in zip(rows[0], ("last frame and truth", "probability", "hits, misses, false alarms"), strict=True):
        axes.set_title(title, fontsize=9)
    return figure


def _predict(judged: Judged, fire: int, step: int) -> tuple[Mask, Mask, Mask, NDArray[Any]]:
    """Return domain, last frame, truth and probability of a test sample."""
    samples = judged.contender.samples("test")
    return _predicted(judged.contender.predict, samples, samples.samples.index((fire, step)))


def _predicted(predict: Probability, samples: FireDataset, index: int) -> tuple[Mask, Mask, Mask, NDArray[Any]]:
    """Return domain, last frame, truth and probability, cut to a square around the fire."""
    import torch

    batch = load_batch(samples, [index])
    with torch.inference_mode():
        probability = predict(batch)[0].float().cpu().numpy()
    domain, target = batch.domain[0].numpy(), (batch.target & batch.domain)[0].numpy()
    box = _around(target | batch.burnt[0].numpy())
    return domain[box], batch.burnt[0].numpy()[box], target[box], probability[box]


def _around(fire: Mask, margin: int = 16) -> tuple[slice, slice]:
    """Return the rows and columns of a square around a fire, moved into the picture."""
    ends = [np.flatnonzero(fire.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    side = max(last - first for first, last in ends) + 2 * margin
    slices = []
    for (first, last), length in zip(ends, fire.shape, strict=True):
        start = max(min((first + last - side) // 2, length - side), 0)
        slices.append(slice(start, start + side))
    return slices[0], slices[1]


def _show(axes: Axes, picture: Picture) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")


def _growth_f1(predicted: Mask, last: Mask, target: Mask, domain: Mask) -> str:
    open_ = domain & ~last
    hits = int((open_ & predicted & target).sum())
    wrong = int((open_ & (predicted != target)).sum())
    return f"growth-F1 {2 * hits / (2 * hits + wrong):.2f}" if hits + wrong else "no growth, none predicted"

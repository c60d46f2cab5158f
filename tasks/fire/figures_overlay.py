"""A prediction over its terrain: hillshade, what had burnt, the probability of burning next, the true outline."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LightSource, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from tasks.figures import subplots
from tasks.fire import palette
from tasks.fire.prediction import Place, Prediction


def hillshade(elevation: NDArray[np.float32] | None, shape: tuple[int, int], cell_metres: float) -> NDArray[np.float64]:
    """Return (H, W) brightness in 0..1 with light from the northwest; even where there is no elevation."""
    if elevation is None or not np.isfinite(elevation).any():
        return np.full(shape, 0.85)
    filled = np.where(np.isfinite(elevation), elevation, np.nanmedian(elevation))
    light = LightSource(azdeg=315, altdeg=45)
    return 0.45 + 0.55 * np.asarray(light.hillshade(filled, vert_exag=1.5, dx=cell_metres, dy=cell_metres), np.float64)


def draw_overlay(prediction: Prediction, place: Place) -> Figure:
    """Draw one predicted frame over the hillshade of its crop."""
    shape = prediction.domain.shape
    ground = hillshade(place.elevation, shape, place.cell_metres)[..., None] * np.array(to_rgb(palette.UNBURNT))
    growth = prediction.domain & ~prediction.before
    strength = np.where(growth, np.clip(prediction.probability, 0, 1), 0)[..., None]
    fire = np.asarray(colormaps[palette.PROBABILITY](strength[..., 0]))[..., :3]
    opacity = np.clip(strength * 3, 0, 0.9)
    picture = ground * (1 - opacity) + fire * opacity
    picture[prediction.before] = to_rgb(palette.BURNT)
    picture[~prediction.domain] = to_rgb(palette.OUTSIDE)
    figure, axes = subplots(figsize=(6.4, 5.6 * min(max(shape[0] / shape[1], 0.5), 1.6) + 0.8), layout="constrained")
    axes.imshow(picture, interpolation="nearest")
    handles: list[Patch | Line2D] = [Patch(facecolor=palette.BURNT, label=f"burnt in frame {prediction.start}")]
    lines = [(prediction.burnt, palette.PREDICTED, f"predicted, frame {prediction.frame}")]
    if prediction.truth is not None:
        lines.append((prediction.truth & prediction.domain, palette.TRUE, f"true, frame {prediction.frame}"))
    for state, colour, label in lines:
        if state.any() and not state.all():
            axes.contour(state, levels=[0.5], colors=[colour], linewidths=1.4)
        handles.append(Line2D([], [], color=colour, label=label))
    _scale_bar(figure, shape, place.cell_metres)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{prediction.fire}: frame {prediction.start} to {prediction.frame}", loc="left", fontsize=10)
    scale = ScalarMappable(Normalize(0, 1), palette.PROBABILITY)
    bar = figure.colorbar(scale, ax=axes, shrink=0.6, pad=0.02)
    bar.set_label("probability of burning", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    return figure


def _scale_bar(figure: Figure, shape: tuple[int, int], cell_metres: float) -> None:
    """A bar of a round length, about a quarter of the width, in the lower left corner."""
    axes = figure.axes[0]
    wanted = shape[1] * cell_metres / 4
    power = 10.0 ** np.floor(np.log10(wanted))
    metres = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    left, bottom = 0.04 * shape[1], 0.96 * shape[0]
    axes.plot(
        [left, left + metres / cell_metres], [bottom, bottom], color="#111111", linewidth=3, solid_capstyle="butt"
    )
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    axes.text(left, bottom - 0.02 * shape[0], text, fontsize=8, va="bottom", color="#111111")

"""The curves of a training: what its history holds, drawn over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.figures import subplots

COLUMNS, WIDTH, HEIGHT = 4, 3.2, 2.3  # panels in a line; inches of one
MARKED = 25  # points below which each is marked
Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Steps and values by what a line is called."""


def draw_curves(history: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw loss, learning rates, gradient norm and the metrics of the evaluations from the rows of a history.

    Metrics that were evaluated once are left to the tables: a point is no curve.
    """
    panels = {**_of_training(history["training"]), **_of_evaluation(history["evaluation"])}
    lines = -(-len(panels) // COLUMNS)
    high = HEIGHT * lines
    figure, axes = subplots(lines, COLUMNS, figsize=(WIDTH * COLUMNS, high), squeeze=False)
    figure.subplots_adjust(left=0.05, right=0.99, bottom=0.45 / high, top=1 - 0.3 / high, hspace=0.55, wspace=0.3)
    places = axes.flatten()
    for place, (title, series) in zip(places, panels.items(), strict=False):
        _draw(place, title, series)
    for place in places[len(panels) :]:
        place.remove()
    return figure


def _of_training(rows: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    steps = [row["step"] for row in rows]
    terms = sorted(rows[0]["terms"]) if rows else []
    losses = {"loss": (steps, [row["loss"] for row in rows])}
    if len(terms) > 1:
        losses |= {term: (steps, [row["terms"][term] for row in rows]) for term in terms}
    groups = sorted(rows[0]["learning_rates"]) if rows else []
    return {
        "training loss": losses,
        "learning rate": {group: (steps, [row["learning_rates"][group] for row in rows]) for group in groups},
        "gradient norm": {"before clipping": (steps, [row["gradient_norm"] for row in rows])},
    }


def _of_evaluation(rows: Sequence[Mapping[str, Any]]) -> dict[str, Series]:
    panels: dict[str, Series] = {}
    for name in sorted({name for row in rows for name, value in row.items() if value is not None} - {"step", "epoch"}):
        known = [row for row in rows if row.get(name) is not None]
        if len(known) > 1:
            panels[name] = {name: ([row["step"] for row in known], [row[name] for row in known])}
    return panels


def _draw(axes: Axes, title: str, series: Series) -> None:
    for label, (steps, values) in series.items():
        axes.plot(steps, values, label=label, marker="o" if len(steps) < MARKED else None, markersize=3, linewidth=1.4)
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend(fontsize=6, edgecolor="none", framealpha=0.7, ncols=1 if len(series) < 5 else 2)

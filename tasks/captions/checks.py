"""Whether what a generated caption says is so: its numbers, events and regions, as counts that add up over samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.captions.events import events
from tasks.captions.numbers import quantities
from tasks.captions.quantities import Key, Kind
from tasks.captions.regions import Gazetteer
from tasks.text.metrics import Pair

Number = TypeVar("Number", int, float)

SAMPLE_KEYS: dict[str, Key] = {
    "t_max": ("temperature", "maximum"),
    "t_min": ("temperature", "minimum"),
    "t_mean": ("temperature", "mean"),
    "t_change": ("temperature", "change"),
    "wind_max": ("wind", "maximum"),
    "wind_mean": ("wind", "mean"),
    "msl_min": ("pressure", "minimum"),
    "msl_min_latitude": ("latitude", None),
    "msl_min_longitude": ("longitude", None),
    "msl_max": ("pressure", "maximum"),
    "msl_mean": ("pressure", "mean"),
    "msl_change": ("pressure", "change"),
    "rain_max": ("rain", "maximum"),
    "rain_mean": ("rain", "mean"),
    "wet_share": ("wet area", "mean"),
    "clearness": ("sunlight", "mean"),
    "fog_share": ("fog time", "mean"),
    "sea_mean": ("sea temperature", "mean"),
}
"""Key of `tasks.samples.weather_statistics.STATISTICS` -> what a text calls it."""

_TOLERANCES: dict[Kind, float] = {
    "temperature": 2.0,
    "sea temperature": 2.0,
    "wind": 2.0,
    "rain": 2.0,
    "rain rate": 2.0,
    "snow": 20.0,
    "pressure": 3.0,
    "wet area": 10.0,
    "fog time": 10.0,
    "sunlight": 10.0,
    "percent": 10.0,
    "latitude": 2.0,
    "longitude": 2.0,
}
"""In the canonical unit of each kind."""


def tolerance(kind: Kind, truth: float) -> float:
    """Return by how much a stated value may differ: for amounts of rain and snow also 20 % of the truth."""
    return max(_TOLERANCES[kind], 0.2 * abs(truth) if kind in ("rain", "rain rate", "snow") else 0.0)


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """Counts over the quantities of one or more texts; add them up for a corpus."""

    stated: int = 0
    """All quantities, also those that nothing is known to compare with."""
    checked: Mapping[Kind, int] = field(default_factory=dict)
    within: Mapping[Kind, int] = field(default_factory=dict)
    absolute_error: Mapping[Kind, float] = field(default_factory=dict)
    """Sum over the checked ones, in the canonical unit of the kind."""

    def __add__(self, other: ValueCounts) -> ValueCounts:
        """Return the counts of both."""
        return ValueCounts(
            self.stated + other.stated,
            _added(self.checked, other.checked),
            _added(self.within, other.within),
            _added(self.absolute_error, other.absolute_error),
        )

    def accuracy(self, kind: Kind | None = None) -> float:
        """Return the share within tolerance of the checked quantities of a kind, or of all; NaN if none."""
        checked = sum(self.checked.values()) if kind is None else self.checked.get(kind, 0)
        within = sum(self.within.values()) if kind is None else self.within.get(kind, 0)
        return within / checked if checked else float("nan")

    def mean_absolute_error(self, kind: Kind) -> float:
        """Return the mean absolute error in the canonical unit of the kind; NaN if none was checked."""
        return self.absolute_error[kind] / self.checked[kind] if self.checked.get(kind) else float("nan")


def _added(a: Mapping[Kind, Number], b: Mapping[Kind, Number]) -> dict[Kind, Number]:
    return {kind: a.get(kind, 0) + b.get(kind, 0) for kind in {**a, **b}}


def sample_truth(values: Mapping[str, float]) -> dict[Key, float]:
    """Return the statistics of the sample weather, keyed by what a text calls them."""
    return {SAMPLE_KEYS[name]: value for name, value in values.items() if name in SAMPLE_KEYS}


def value_accuracy(hypothesis: str, truth: Mapping[Key, float]) -> ValueCounts:
    """Compare the quantities that a text states with the truth in canonical units.

    A quantity whose kind and statistic are not in `truth`, or NaN there, is stated but not checked: thresholds never
    are.
    """
    counts = ValueCounts()
    for quantity in quantities(hypothesis):
        kind, value = quantity.kind, truth.get(quantity.key)
        if value is None or not np.isfinite(value):
            counts += ValueCounts(stated=1)
            continue
        error = abs(quantity.value - value)
        error = min(error, 360 - error) if kind == "longitude" else error
        counts += ValueCounts(1, {kind: 1}, {kind: int(error <= tolerance(kind, value))}, {kind: error})
    return counts


@dataclass(frozen=True, slots=True)
class SetScore:
    """How well sets agree, with the counts of each sample; corpus values are micro-averaged: sums over sums."""

    common: NDArray[np.int64]
    predicted: NDArray[np.int64]
    actual: NDArray[np.int64]

    @property
    def precision(self) -> float:
        """The share of what was predicted that is so; NaN if nothing was."""
        return _ratio(self.common.sum(), self.predicted.sum())

    @property
    def recall(self) -> float:
        """The share of what is so that was predicted; NaN if there is nothing."""
        return _ratio(self.common.sum(), self.actual.sum())

    @property
    def f1(self) -> float:
        """2 common / (predicted + actual); NaN if both are empty."""
        return _ratio(2 * self.common.sum(), (self.predicted + self.actual).sum())


def _ratio(above: np.int64, below: np.int64) -> float:
    return float(above / below) if below else float("nan")


def event_f1(pairs: Sequence[Pair]) -> SetScore:
    """Compare the event classes of each text with those of its references together."""
    return _sets(pairs, events)


def region_f1(pairs: Sequence[Pair], gazetteer: Gazetteer) -> SetScore:
    """Compare the regions that each text names with those of its references together; unknown names do not count."""
    return _sets(pairs, gazetteer.mentions)


def _sets(pairs: Sequence[Pair], read: Callable[[str], Set[object]]) -> SetScore:
    rows = []
    for text, references in pairs:
        predicted, actual = read(text), set[object]().union(*map(read, references))
        rows.append((len(predicted & actual), len(predicted), len(actual)))
    return SetScore(*np.array(rows, np.int64).reshape(-1, 3).T)

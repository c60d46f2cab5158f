"""Captions of the sample weather by date and region, and the numbers behind them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from configs.weather import SampleSource
from storage.files import write_atomic
from tasks.samples.weather_phrases import Dice, describe
from tasks.samples.weather_statistics import Values, day_statistics, truth_rows, with_changes
from tasks.samples.weather_units import SampleUnit


@dataclass(frozen=True, slots=True)
class DayCaptions:
    """What is said about one UTC day."""

    day: date
    descriptions: dict[str, list[str]]
    """Region -> texts, each in other words."""
    statistics: dict[str, Values]
    """Region -> the numbers that the text was made from."""


def day_captions(config: SampleSource, unit: SampleUnit) -> Iterator[DayCaptions]:
    """The captions of every day of a unit, one day in memory at a time."""
    has_eve = unit.first > config.start
    before = day_statistics(config, unit.first - timedelta(days=1)) if has_eve else None
    for day in unit.dates():
        today = day_statistics(config, day)
        statistics = with_changes(today, before) if before else today
        texts = {
            region: [describe(values, dice) for dice in _dice(config, day, region)]
            for region, values in statistics.items()
        }
        yield DayCaptions(day, texts, statistics)
        before = today


def _dice(config: SampleSource, day: date, region: str) -> Iterator[Dice]:
    yield Dice(config.seed, day, region)
    yield from (Dice(config.seed, day, region, number) for number in range(1, config.wordings))


def write_captions(config: SampleSource, unit: SampleUnit, folder: Path) -> None:
    """Write a unit of kind `captions`: the CSV of captions and the CSV of their truth.

    Captions have the columns `date` and `event description`, a JSON list of {"region", "description"}; the truth
    has date, region, variable, statistic, value and unit. Regions are the boxes of `weather_regions.REGIONS`.
    """
    captions: list[tuple[Any, ...]] = [("date", "event description")]
    truth: list[tuple[Any, ...]] = [("date", "region", "variable", "statistic", "value", "unit")]
    for said in day_captions(config, unit):
        events = [
            {"region": region, "description": text} for region, texts in said.descriptions.items() for text in texts
        ]
        captions.append((said.day, json.dumps(events, ensure_ascii=False)))
        truth.extend(truth_rows(said.day, said.statistics))
    for name, rows in zip(unit.files, (captions, truth), strict=True):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_atomic(folder / name, text.getvalue())

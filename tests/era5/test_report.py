"""The report of a store: maps of a readable choice of its channels, and of any others on demand."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from configs.weather_pipeline import WeatherConfig
from flows.weather import weather
from storage.assets import AssetStore
from tasks.era5.pictures import choose_channels
from tasks.progress import Silent
from tasks.session import Outcome, Session
from tests.era5.raw_files import field, hours, write_cds

LEVELS = (1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 50)
SURFACE = ("d2m", "msl", "sp", "t2m", "u10", "v10")
MANY = [*SURFACE, *(f"{name}@{level}" for name in "rtuvz" for level in LEVELS)]


def test_the_choice_shows_every_variable_and_levels_from_the_ground_up() -> None:
    chosen = choose_channels(MANY)
    assert [name for name in chosen if "@" not in name] == list(SURFACE)
    assert [name.split("@")[0] for name in chosen if "@" in name] == ["r", "r", "t", "u", "v", "z"]
    levels = [int(name.split("@")[1]) for name in chosen if "@" in name]
    assert max(levels) >= 925
    assert min(levels) <= 150
    assert len(set(levels)) == len(levels)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["u10", "t@850", "t@500"], ["u10", "t@850", "t@500"]),
        ([f"t@{level}" for level in LEVELS], [f"t@{level}" for level in LEVELS if level != 400]),
        ([f"v{n}" for n in range(23)], [f"v{n}" for n in range(0, 23, 2)]),
    ],
)
def test_the_choice_is_everything_that_fits_and_evenly_spread_beyond(names: list[str], chosen: list[str]) -> None:
    assert choose_channels(names) == chosen


def test_wanted_channels_come_in_their_order_and_unknown_ones_are_named() -> None:
    assert choose_channels(MANY, ["z@50", "u10"]) == ["z@50", "u10"]
    with pytest.raises(ValueError, match=r"report_channels: the store has no tp, w@10; it has d2m, msl, .*z@50"):
        choose_channels(MANY, ["tp", "u10", "w@10"])


MISSING_RED = (0xD9 / 255, 0x53 / 255, 0x4F / 255)


def run(store: AssetStore, raw: Path, **settings: object) -> dict[str, Outcome]:
    """Run the pipeline on raw files with small windows; return what each stage did."""
    windows = {"time": 4, "height": 6, "width": 8, "max_nan_share": 1}
    config = {"source": {"kind": "files", "paths": [str(raw)]}, "windows": windows, **settings}
    session = Session(store, Silent())
    with session.active():
        weather(WeatherConfig.model_validate(config))
    return {outcome.stage: outcome for outcome in session.outcomes}


def test_other_channels_are_drawn_on_demand_and_nothing_else_is_made_again(store: AssetStore, tmp_path: Path) -> None:
    times, raw = hours("2024-01-02T05", 72), tmp_path / "raw"
    raw.mkdir()
    for number, name in enumerate("tz"):
        write_cds(raw / f"{name}.nc", {name: field(72, 13, seed=number)}, times, levels=LEVELS)
    first = run(store, raw)["era5_report"]
    assert first.asset is not None
    assert first.asset.manifest.counts == {"channels": 26, "channels_mapped": 12}
    again = run(store, raw, report_channels=["t@50"])
    assert {name for name, outcome in again.items() if outcome.status == "RUN"} == {"era5_report"}
    report = again["era5_report"].asset
    assert report is not None
    assert report.manifest.counts == {"channels": 26, "channels_mapped": 1}
    heights = [plt.imread(asset.folder / "windows.png").shape[0] for asset in (first.asset, report)]
    assert heights[0] > 5 * heights[1]
    coverage = [plt.imread(asset.folder / "coverage.png") for asset in (first.asset, report)]
    assert (coverage[0] == coverage[1]).all()
    below_the_legend = coverage[0][len(coverage[0]) // 3 :, :, :3]
    assert not (abs(below_the_legend - MISSING_RED) < 0.01).all(-1).any(), "the ends of shards are no gap"
    assert len((report.folder / "statistics.csv").read_text().splitlines()) == 1 + 26
    with pytest.raises(ValueError, match=re.escape("report_channels: the store has no t@51")):
        run(store, raw, report_channels=["t@51"])

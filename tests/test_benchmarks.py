"""The benchmark harness: what is recorded, when an aim is met, and the page that is made of it."""

from __future__ import annotations

import inspect
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

from benchmarks import __main__ as command
from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.fields import packed
from benchmarks.figure import RESULTS, Figure, load_figures
from benchmarks.machine import describe_machine
from benchmarks.process import run_weighed
from benchmarks.raw_files import VARIABLES, RawData, make_raw_files, raw_path
from benchmarks.report import page
from benchmarks.suite import benchmark_names, load_benchmark
from benchmarks.suite.plan_time import __doc__ as plan_text

RECORDED = {
    "name", "benchmark", "what", "value", "unit", "aim", "met", "peer", "peer_value", "peer_unit", "notes", "command",
    "machine", "date", "detail",
}  # fmt: skip


def figure(**fields: Any) -> Figure:
    known = {
        "name": "plan_seconds",
        "benchmark": "plan_time",
        "what": "planning",
        "value": 1.5,
        "unit": "s",
        "command": "python -m benchmarks plan_time",
        "machine": "a machine",
        "date": date(2024, 1, 1),
    }
    return Figure(**known | fields)


@pytest.mark.parametrize(
    ("value", "aim", "met"),
    [
        (10, ">= 10", True),
        (9.99, ">= 10", False),
        (1.15, "<= 1.15", True),
        (1.16, "<= 1.15", False),
        (2, "< 2", False),
        (1.9, "< 2", True),
        (5, None, None),
    ],
)
def test_an_aim_is_met_or_not(value: float, aim: str | None, met: bool | None) -> None:
    assert figure(value=value, aim=aim).met is met


@pytest.mark.parametrize("aim", ["10", "about 10", ">= ten", ">=10"])
def test_an_aim_that_cannot_be_judged_is_refused(aim: str) -> None:
    with pytest.raises(ValidationError):
        figure(aim=aim)


def test_a_figure_survives_its_file_and_its_verdict_is_never_read_from_it(tmp_path: Path) -> None:
    original = figure(aim="< 2", detail={"rounds": [1, 2]}, notes=("a note",))
    original.save(tmp_path)
    path = tmp_path / "plan_seconds.json"
    recorded = json.loads(path.read_text())
    assert recorded.keys() == RECORDED
    assert recorded["met"] is True
    path.write_text(json.dumps(recorded | {"value": 3.0}))
    (loaded,) = load_figures(tmp_path)
    assert loaded.met is False
    assert loaded.detail == original.detail


def test_recorded_figures_are_whole_and_name_no_place() -> None:
    for recorded in load_figures(RESULTS):
        assert recorded.benchmark in benchmark_names()
        assert recorded.command == f"python -m benchmarks {recorded.benchmark}"
        for place in ("/root", "/home", "/tmp", "/work", "/Users"):
            assert place not in recorded.model_dump_json(), f"{recorded.name} names a path below {place}"


def test_a_bench_fills_in_machine_command_and_load(tmp_path: Path) -> None:
    made = Bench("plan_time", tmp_path).figure("plan_seconds", what="planning", value=1, unit="s", detail={"n": 1})
    assert made.command == "python -m benchmarks plan_time"
    assert made.machine == describe_machine()
    assert made.detail.keys() == {"n", "load_average", "software"}


def test_every_benchmark_module_can_be_run_and_explains_itself() -> None:
    assert {"window_read", "ingest_speed", "ingest_memory", "cached_rerun", "plan_time"} <= set(benchmark_names())
    for name in benchmark_names():
        module = load_benchmark(name)
        assert list(inspect.signature(module.run).parameters) == ["bench"]
        assert module.__doc__, f"{name} has no text for the page"


def test_rounds_are_interleaved_and_turned() -> None:
    order: list[str] = []
    results = interleave(3, {name: lambda name=name: order.append(name) or len(order) for name in "ABC"})
    assert "".join(order) == "ABCCBAABC"
    assert results == {"A": [1, 6, 7], "B": [2, 5, 8], "C": [3, 4, 9]}


def test_ratios_are_medians_of_paired_rounds() -> None:
    assert median_ratio([2, 100, 9], [1, 10, 3]) == 3  # 2, 10, 3
    assert rounded(1234.5) == 1230
    assert rounded(0.012345) == 0.0123


def test_the_page_shows_every_figure_and_says_what_is_missed() -> None:
    met = figure(aim="< 2")
    missed = figure(
        name="other", what="something else", value=1, aim=">= 2", peer="a peer", peer_value=7, peer_unit="MB"
    )
    text = page([met, missed])
    assert "| planning | 1.5 s | < 2 | yes |  |" in text
    assert "| something else | 1 s | >= 2 | **no** | a peer: 7 MB |" in text
    assert "Not met: `other` is 1 s, aim >= 2." in text
    assert "Not measured yet: cached_rerun," in text
    assert (plan_text or "").strip().splitlines()[-1] in text
    assert "Every aim" in page([met])


def test_an_unknown_benchmark_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "nonsense"])
    assert command.main() == 2
    assert "there is no benchmark 'nonsense'; there are: cached_rerun" in capsys.readouterr().err


def test_fields_are_packed_to_16_bits() -> None:
    smooth = np.random.default_rng(0).normal(0, 15, (200, 200)).astype(np.float32)
    plane = packed(smooth).astype(np.float64)
    unit = 2 ** np.ceil(np.log2(np.ptp(smooth) / 65535))
    multiples = (plane - plane.min()) / unit
    assert np.abs(multiples - np.rint(multiples)).max() < 0.01
    assert multiples.max() < 2**16
    assert np.abs(plane - smooth).max() <= 0.51 * unit


def test_raw_files_are_as_described_and_later_periods_repeat(tmp_path: Path) -> None:
    data = RawData(rows=9, columns=18, resolution=10.0, steps=6, periods=3, levels=(850, 500), distinct=2)
    make_raw_files(data, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{v}-{p:03d}.nc" for v in VARIABLES for p in range(3)}
    with netCDF4.Dataset(raw_path(tmp_path, "t", 0)) as file:
        assert file["t"].dimensions == ("valid_time", "pressure_level", "latitude", "longitude")
        assert file["t"].filters()["complevel"] == 1
    with xr.open_mfdataset(sorted(tmp_path.glob("*.nc")), join="outer") as dataset:
        hours = dataset.valid_time.values.astype("datetime64[h]").astype(int)
        assert np.array_equal(np.diff(hours), np.ones(17))
        assert sum(v.nbytes for v in dataset.data_vars.values()) == pytest.approx(1e6 * data.megabytes)
        u10 = dataset.u10.values
    assert np.array_equal(u10[12:], u10[:6])
    assert not np.array_equal(u10[6:12], u10[:6])


def test_a_program_answers_and_its_whole_tree_is_weighed(tmp_path: Path) -> None:
    make_raw_files(RawData(9, 18, 10.0, steps=2, periods=1, levels=(850,)), tmp_path)
    answer, peak = run_weighed("decode_netcdf", raw=str(tmp_path))
    assert answer["megabytes"] == pytest.approx(7 * 2 * 9 * 18 * 4 / 1e6)
    assert answer["cpu"] > 0
    assert peak > 10e6


def test_a_program_that_fails_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "bad.nc").write_text("nothing")
    with pytest.raises(RuntimeError, match="decode_netcdf ended with code 1"):
        run_weighed("decode_netcdf", raw=str(tmp_path))

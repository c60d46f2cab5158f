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
import torch
import xarray as xr
import zarr
from pydantic import ValidationError

from benchmarks import __main__ as command
from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.fields import packed
from benchmarks.figure import RESULTS, Figure, load_figures
from benchmarks.fire_archives import build_cache, describe_archive, generate
from benchmarks.machine import describe_machine
from benchmarks.process import Program, run_program, run_weighed
from benchmarks.raw_files import VARIABLES, RawData, make_raw_files, raw_path
from benchmarks.report import page
from benchmarks.suite import (
    benchmark_names,
    edge,
    fire_cache,
    fire_read,
    fire_skill,
    fire_unet,
    ingest_speed,
    load_benchmark,
    narratives,
)
from benchmarks.suite.memory_recall import nearest_key
from benchmarks.suite.plan_time import __doc__ as plan_text
from configs.fire_sample import SampleFires
from tasks.fire.archive import INDICES
from tasks.fire.images import read_mask
from tests.era5.stores import noise, write_store

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
    ours = {"window_read", "ingest_speed", "ingest_memory", "cached_rerun", "plan_time"}
    assert ours | {"fire_cache", "fire_read", "fire_predict", "fire_skill"} <= set(benchmark_names())
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
    assert "Not measured yet: answers," in text
    assert (plan_text or "").strip().splitlines()[-1] in text
    assert "Every aim" in page([met])


def test_an_unknown_benchmark_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "nonsense"])
    assert command.main() == 2
    assert "there is no benchmark 'nonsense'; there are: answers" in capsys.readouterr().err


def test_what_takes_an_hour_runs_only_when_named() -> None:
    on_request = set(benchmark_names()) - set(benchmark_names(on_request=False))
    assert on_request == {
        "answers", "fire_skill", "fire_unet", "fuzz", "gpu_loop", "kills", "mutants", "narratives", "puzzles", "scenes",
        "smollm2",
    }  # fmt: skip


@pytest.mark.parametrize("quick", [True, False])
def test_a_benchmark_on_request_resumes_in_its_folder_and_others_start_clean(
    quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, bool] = {}

    def remember(bench: Bench) -> list[Figure]:
        found[bench.name] = (bench.work / "left").exists()
        (bench.work / "left").touch()
        return []

    for name in ("fire_skill", "plan_time"):
        monkeypatch.setattr(load_benchmark(name), "run", remember)
    monkeypatch.setattr(command, "write_page", lambda figures: None)
    arguments = ["benchmarks", "fire_skill", "plan_time", "--work", str(tmp_path), *(["--quick"] if quick else [])]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command.main() == command.main() == 0
    assert found == {"fire_skill": not quick, "plan_time": False}


def test_the_skill_benchmark_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MILLRACE_SHARED_DATA", str(tmp_path))
    monkeypatch.setattr(command, "write_page", lambda figures: None)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "fire_skill", "--work", str(tmp_path)])
    assert command.main() == 1
    assert "the shared archive of 320 fires is absent; set MILLRACE_SHARED_DATA" in capsys.readouterr().err


def scored() -> dict[str, Any]:
    """Return the part of `scores.json` that the gains are read from; no baseline is the best at everything."""

    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    def model(growth: float, macro: float, iou: float, seeds: tuple[int | None, ...] = (None,)) -> dict[str, Any]:
        fields = {"growth_f1": growth, "macro_f1_later": macro}
        runs = [
            {"seed": seed, "test": {name: value + (seed or 0) / 100 for name, value in fields.items()}}
            for seed in seeds
        ]
        return {
            "test": {name: estimate(value) for name, value in fields.items()},
            "rollout": {"iou": [estimate(0.9), estimate(iou)]},
            "runs": runs,
        }

    models = {
        "emberformer": model(0.9, 0.9, 0.9, (0, 1)),
        "CopyLast": model(0.0, 0.8, 0.2),
        "burnable dilation": model(0.6, 0.7, 0.6),
        "wind-aware dilation": model(0.7, 0.6, 0.5),
        "unet_s": model(0.75, 0.8, 0.8, (0, 2)),
    }
    ours = models["emberformer"]
    return {
        "settings": {"rollout_steps": 2},
        "parts": {"test": {"fires": 3, "samples": 9}},
        "models": models,
        "differences": {"emberformer": {
            name: {
                **{m: estimate(ours["test"][m]["value"] - other["test"][m]["value"]) for m in other["test"]},
                "rollout_iou": [
                    estimate(a["value"] - b["value"])
                    for a, b in zip(ours["rollout"]["iou"], other["rollout"]["iou"], strict=True)
                ],
            }
            for name, other in models.items() if name != "emberformer"
        }},
    }  # fmt: skip


def test_skill_figures_are_paired_gains_over_the_best_baseline_of_each_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fire_skill.Judged(scored(), {"profile": "compare"})
    gains = {}
    for benchmark in (fire_skill, fire_unet):
        monkeypatch.setattr(benchmark, "judge", lambda *asked: found)
        gains |= {f.name: f for f in benchmark.run(Bench(benchmark.__name__.rpartition(".")[2], tmp_path))}
    assert {name: (figure.value, figure.aim, figure.met) for name, figure in gains.items()} == {
        "fire_growth_f1_gain": (pytest.approx(0.2), ">= 0.25", False),
        "fire_macro_f1_gain": (pytest.approx(0.1), ">= 0.08", True),
        "fire_gain_over_unet": (pytest.approx(0.15), ">= 0.08", True),
        "fire_rollout_iou_gain": (pytest.approx(0.3), ">= 0.20", True),
    }
    assert {name: figure.peer_value for name, figure in gains.items()} == {
        "fire_growth_f1_gain": 0.7, "fire_macro_f1_gain": 0.8, "fire_rollout_iou_gain": 0.6, "fire_gain_over_unet": 0.75
    }  # fmt: skip
    assert gains["fire_macro_f1_gain"].peer == (
        "CopyLast, the best of CopyLast, burnable dilation, wind-aware dilation"
    )
    assert gains["fire_gain_over_unet"].notes[0] == (
        "EmberFormer 0.900 (by seed 0.900, 0.910), UNetS 0.750 (by seed 0.750, 0.770); "
        "the gain's interval is +0.050 to +0.250."
    )
    assert gains["fire_rollout_iou_gain"].notes[0].startswith("EmberFormer 0.900, burnable dilation 0.600; ")


def test_reading_and_decoding_are_compared_round_by_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ternary decodes twice as fast and reads half as fast in the middle round of three."""
    rates = {edge.RECIPE: iter([(10, 30), (20, 40), (90, 10)]), "q4-32k": iter([(40, 30), (40, 20), (90, 1)])}

    class Told:
        def __init__(self, name: str, task: dict[str, Any], python: Path | None = None) -> None:
            self._name, self._task = name, task

        def __enter__(self) -> Told:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def answer(self) -> dict[str, Any]:
            if self._name == "edge_model":
                return {"files": dict.fromkeys(edge.BUNDLE, 1_000_000)}
            if self._name == "edge_caption":
                return {"foreign": [], "peak_bytes": 1, "first_seconds": 1.0}
            read, decoded = next(rates[Path(self._task["path"]).parent.name])
            return {"read_per_second": read, "tokens_per_second": decoded, "peak_bytes": 1}

    monkeypatch.setattr(edge, "Program", Told)
    monkeypatch.setattr(edge, "edge_python", lambda: Path("python"))
    monkeypatch.setattr(edge, "ROUNDS", 3)
    figures = {found.name: found for found in edge.run(Bench("edge", tmp_path))}
    reading, decoding = figures["edge_vs_q4_read_speed"], figures["edge_vs_q4_speed"]
    assert (reading.value, reading.peer_value, reading.aim) == (0.5, 40, None)
    assert (decoding.value, decoding.peer_value, decoding.met) == (2, 20, True)


def test_a_lookup_finds_the_keys_that_are_nearest_by_cosine() -> None:
    kept = torch.tensor([[1.0, 0.0], [0.0, 9.0], [-1.0, 0.0], [0.0, -1.0]])
    asked = torch.tensor([[0.6, 0.5], [0.9, 0.8], [-2.0, 1.0], [0.1, -0.2]])
    assert nearest_key(asked, kept) == 3 / 4


@pytest.fixture(scope="module")
def fire_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = SampleFires(fires=5, rows=160, columns=176, largest_crop=64, max_frames=4)
    return generate(source, tmp_path_factory.mktemp("fires"), side=100)


@pytest.mark.long
def test_generated_fires_get_crops_of_one_size_and_no_picture_has_the_bytes_of_another_kind(fire_archive: Path) -> None:
    facts = describe_archive(fire_archive)
    assert facts["crop_sides"] == {"least": 100, "median": 100, "most": 100}
    boxes = json.loads((fire_archive / INDICES).read_bytes())
    assert all(0 <= y0 < y1 <= 160 and 0 <= x0 < x1 <= 176 for y0, y1, x0, x1 in boxes.values())
    pictures = sorted((fire_archive / "fire_frames").rglob("*.png"))
    assert facts["frames"] == len(pictures) > 5
    for picture in pictures:
        name = picture.name.replace("fire_", "iso_")
        other = fire_archive / "isochrones" / picture.parent.name / name
        assert picture.read_bytes() != other.read_bytes()
        assert np.array_equal(read_mask(picture, 231), read_mask(other, 231))


def test_the_cache_and_its_peer_pool_alike_and_a_difference_is_refused(fire_archive: Path, tmp_path: Path) -> None:
    cache, _ = build_cache(fire_archive, tmp_path / "assets", 8, train=3, validation=1)
    pooled = tmp_path / "pooled"
    run_program("pool_fire_images", archive=str(fire_archive), folder=str(pooled), patch=8, isochrones=False)
    fire_cache._require_equal(pooled, cache.folder)
    spoilt = pooled / "sequence_002" / "fire_tokens.npy"
    np.save(spoilt, np.load(spoilt) + 0.1)
    with pytest.raises(RuntimeError, match="sequence_002 has other tokens"):
        fire_cache._require_equal(pooled, cache.folder)


def test_ingested_stores_that_differ_in_one_bit_at_any_step_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One variable on one level, one on two; 21 steps are no whole number of chunks."""
    data = noise((21, 3, 16, 18))
    data[4, 1, 3, 3] = np.nan
    write_store(tmp_path / "assets" / "era5_windows" / "key", data)
    monkeypatch.setattr(ingest_speed, "VARIABLES", ("u10", "t"))
    peers = {
        name: zarr.create_array(tmp_path / ingest_speed.PEER_STORE / name, data=values, chunks=(4, *values.shape[1:]))
        for name, values in (("u10", data[:, 0]), ("t", data[:, 1:]))
    }
    ingest_speed._require_equal(tmp_path)
    for step in (0, 7, 20):
        peers["t"][step, 1, 5, 6] = np.nextafter(data[step, 2, 5, 6], np.float32(np.inf))
        with pytest.raises(RuntimeError, match="the two stores hold different values"):
            ingest_speed._require_equal(tmp_path)
        peers["t"][step] = data[step, 1:]
    ingest_speed._require_equal(tmp_path)


def test_figures_of_reconstruction_are_ratios_to_interpolation_and_to_the_best_baselines(tmp_path: Path) -> None:
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    by_channel = {"SatSwinMAE": {"u10": 1.0, "ssrd": 0.5}, "interpolation of departures": {"u10": 2.0, "ssrd": 4.0}}
    errors = {
        "windows": 96,
        "spells": 12,
        "error": {"SatSwinMAE": 0.75, "interpolation of departures": 3.0},
        "by_channel": by_channel,
        "by_ratio": {"SatSwinMAE": {"0.75": 0.75}, "interpolation of departures": {"0.75": 3.0}},
        "vs_interpolation": estimate(0.25),
        "vs_best": {
            "baseline": {"u10": "interpolation of departures", "ssrd": "climatology"},
            "by_channel": {"u10": estimate(0.5), "ssrd": {"value": 2.0, "low": None, "high": None}},
            "mean": estimate(1.25),
            "geometric_mean": estimate(1.0),
        },
    }
    first, second = narratives._reconstruction(Bench("narratives", tmp_path), errors)
    assert (first.name, first.value, first.peer_value, first.met) == ("mae_vs_interpolation", 0.25, 3, True)
    assert first.notes[0] == "The ratio is 0.25 (0.15 to 0.35), over 96 windows in 12 spells of weather."
    assert (second.name, second.value, second.aim, second.met) == ("mae_vs_best_baseline", 1, "< 1", False)
    assert second.notes == (
        "The geometric mean is 1.00 (0.90 to 1.10), the mean 1.25 (1.15 to 1.35), over 96 windows in 12 spells of "
        "weather.",
        "By channel, with the best baseline: u10 0.50 (0.40 to 0.60) interpolation of departures, "
        "ssrd 2.00 (no interval) climatology.",
    )


@pytest.mark.long
def test_the_cache_and_raw_files_give_the_same_samples(fire_archive: Path, tmp_path: Path) -> None:
    cache, split = build_cache(fire_archive, tmp_path / "assets", fire_read.PATCH, train=3, validation=1)
    task = {"cache": str(cache.folder), "split": str(split.folder), "archive": str(fire_archive), "history": 6}
    wanted = [
        place for batch in fire_read._Draw(cache.folder, split.folder, window_tokens=7).batches(3) for place in batch
    ]
    digests = []
    for reader in ("millrace", "raw"):
        with Program("fire_reader", task | {"reader": reader, "window_tokens": 7}) as program:
            digests.append(program.ask({"check": wanted}))
            assert program.ask({"batches": [wanted, wanted], "seconds": 0})["samples"] == 48
    assert digests[0] == digests[1]
    assert len(set(digests[0])) > 6


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

"""The wildfire pipeline through the `millrace` command: end to end, cached, killed, searched, and its models used."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml

from flows.commands.predict_fire import best_model, describe
from flows.runs import load_runs
from storage.assets import AssetStore
from storage.fire_split import FireSplit, Statistics
from storage.manifest import InputRecord, sealed
from storage.token_cache import TokenCache
from tests import warm
from tests.command import millrace
from tests.conftest import REPOSITORY
from tests.mounts import fill, read_only, small_disk
from tests.once import only
from tests.training.wandb_files import wandb_records

PROFILE: dict[str, Any] = {
    "source": {"kind": "sample", "fires": 16, "rows": 200, "columns": 220, "largest_crop": 64, "max_frames": 5},
    "tokens": {"patch": 8},
    "models": {
        "emberformer": {
            "model": {
                "kind": "emberformer",
                "d_model": 16,
                "num_layers": 1,
                "nhead": 2,
                "decoder": {"kind": "unet", "widths": [8, 12], "depth": 1, "features": 4},
                "head": "front",
            },
            "inputs": {"history": 3, "window_tokens": 6},
            "training": {
                "epochs": 2,
                "steps_per_epoch": 8,
                "batch_size": 4,
                "learning_rates": {"temporal": 3.0e-3, "spatial": 3.0e-3},
                "best": {"metric": "growth_f1", "mode": "max"},
            },
        }
    },
    "evaluation": {
        "bootstrap_resamples": 100,
        "dilation_radii": [2, 6],
        "dilation_radius_per_wind": [0.0],
        "dilation_shift_per_wind": [0.0],
        "rollout_steps": 2,
        "maps": 1,
        "attention_fires": 2,
        "latency_repeats": 0,
    },
    "execution": {"threads": 1, "wandb": {"mode": "disabled"}},
}
STAGES = ("fire_sample", "fire_records", "fire_cache", "fire_split", "fire_data_report", "fire_training emberformer-0")
FIRE = "1"


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("profile") / "tiny.yaml"
    path.write_text(yaml.safe_dump(PROFILE))
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, profile) -> Path:
    """A root in which the tiny pipeline has run."""
    root = tmp_path_factory.mktemp("finished")
    result = run(profile, root)
    assert "7 stages: 7 worked, 0 cached" in result.stdout
    assert re.search(r"epoch 2/2: growth_f1 0\.\d+( \(best\))?$", result.stdout, re.MULTILINE), "one metric, not twenty"
    assert "Warning" not in result.stdout
    return root


def run(profile: str, root: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    here = ("--engine", "inline", "--workers", "inline")
    result = millrace("run", "wildfire", "-p", profile, *here, *more, root=root, **environment)
    assert result.returncode == 0, result.stderr + result.stdout
    return result


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> str:
    """Return the one sentence with which the command refuses arguments; in this process, whose imports are warm."""
    from flows.commands.cli import main

    monkeypatch.setattr(sys, "argv", ["millrace", *arguments, "--root", str(root)])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    assert len(said.strip().splitlines()) == 1
    return said


def plan(profile: str, root: Path, *more: str) -> dict[str, str]:
    """Return what a plan says of each stage: status and reason."""
    text = millrace("plan", "wildfire", "-p", profile, *more, root=root).stdout
    stages = re.findall(r"^(HIT|RUN|RESUME \S+)\s+(fire_\S+(?: \S+-\d+)?)\s+(.*)$", text, re.MULTILINE)
    return {stage: f"{status} {rest}" for status, stage, rest in stages}


def copy_of(finished: Path, root: Path, *without: str) -> Path:
    """Return a root with the same assets, except those of some kinds."""
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns(*without, ".locks", ".runs"))
    return root


def archive_of(root: Path) -> Path:
    return only(root, "fire_sample").folder / "archive"


def test_a_rerun_is_all_hits_and_execution_is_in_no_key(finished, profile):
    assert "7 stages: 0 worked, 7 cached" in run(profile, finished).stdout
    stages = plan(profile, finished, "--set", "execution.loader_workers=1")
    assert set(STAGES) < stages.keys()
    assert all(said.startswith("HIT") for said in stages.values())


def test_another_history_trains_again_and_keeps_the_data(finished, profile):
    stages = plan(profile, finished, "--set", "models.emberformer.inputs.history=2")
    assert all(stages[name].startswith("HIT") for name in STAGES[:5])
    assert re.search(r"RUN\s+config recipe\.inputs\.history 3 -> 2", stages[STAGES[5]])
    assert stages["fire_evaluation_report"].startswith("RUN")


def test_a_plan_imports_no_heavy_library(finished, profile):
    heavy = ["torch", "prefect", "matplotlib", "transformers", "wandb", "optuna", "rasterio"]
    code = (
        f"import sys; sys.argv = ['millrace', 'plan', 'wildfire', '-p', {profile!r}]\n"
        "from flows.commands.cli import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        f"sys.exit(', '.join(name for name in {heavy} if name in sys.modules))"
    )
    environment = os.environ | {"MILLRACE_ROOT": str(finished)}
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True)
    assert not result.stderr.decode().strip()


def test_scores_release_curves_and_report(finished, profile, tmp_path):
    model, report = only(finished, "fire_model"), only(finished, "fire_evaluation_report")
    assert {f.path for f in model.manifest.files} == {"model.safetensors", "config.json", "history.json"}
    assert (report.folder / "curves_emberformer-0.png").is_file()
    scores = json.loads((report.folder / "scores.json").read_text())
    names = scores["models"].keys()
    assert "emberformer" in names
    assert len(names) == 4, "CopyLast and the burnable dilations stand beside the model"
    page = tmp_path / "page.html"
    assert millrace("report", "wildfire", "-o", str(page), root=finished).returncode == 0
    html = page.read_text()
    assert html.index('<section id="fire_evaluation_report">') < html.index("<img") < html.index("<table")
    for picture in ("curves", "calibration", "predictions", "rollout", "map"):
        assert re.search(rf'alt="[^"]*{picture}[^"]*" src="data:image/png;base64,', html), picture


@pytest.mark.long
def test_an_ablation_in_the_config_trains_a_second_model(finished, profile, tmp_path):
    root = copy_of(finished, tmp_path / "root", "fire_evaluation_report")
    ablation = "ablations={calm: {of: emberformer, set: {inputs.wind: false, training.epochs: 1}}}"
    result = run(profile, root, "--set", ablation)
    assert "8 stages: 2 worked, 6 cached" in result.stdout
    assert "fire_training calm-0" in result.stdout
    wind = {a.manifest.config["recipe"]["inputs"]["wind"] for a in AssetStore(root).assets("fire_model")}
    assert wind == {True, False}
    scores = json.loads((only(root, "fire_evaluation_report").folder / "scores.json").read_text())
    assert {"emberformer", "calm"} < scores["models"].keys()


@pytest.mark.long
def test_a_model_in_8_bits_is_judged_beside_its_own_and_taken_by_name(finished, profile, tmp_path):
    root = copy_of(finished, tmp_path / "root", "fire_evaluation_report")
    result = run(profile, root, "--set", "quantised={small: {model: emberformer, calibration: 6}}")
    assert "fire_quantising small-0" in result.stdout
    assert "8 stages: 2 worked, 6 cached" in result.stdout
    scores = json.loads((only(root, "fire_evaluation_report").folder / "scores.json").read_text())
    exact, small = (scores["models"][name]["runs"][0]["validation"]["growth_f1"] for name in ("emberformer", "small"))
    assert small == pytest.approx(exact, abs=0.1)
    asset = only(root, "fire_model_int8")
    assert asset.manifest.metrics["logits_apart"] < 1e-3
    assert asset.manifest.metrics["growth_f1"] == pytest.approx(asset.manifest.metrics["growth_f1_exact"], abs=0.1)
    assert asset.manifest.counts["bytes"] == (asset.folder / "model.onnx").stat().st_size
    predicted = millrace("predict-fire", FIRE, "--model", asset.name, "--output", str(tmp_path / "out"), root=root)
    assert predicted.returncode == 0, predicted.stderr
    assert [*(tmp_path / "out").glob("*.tif")]
    judged = millrace("evaluate", asset.name, root=root)
    assert judged.returncode == 0, judged.stderr


def test_what_is_quantised_must_be_a_model_of_the_pipeline(profile, monkeypatch, capsys, tmp_path):
    for setting in ("quantised={emberformer: {model: emberformer}}", "quantised={small: {model: other}}"):
        told = refused(monkeypatch, capsys, tmp_path, "plan", "wildfire", "-p", profile, "--set", setting)
        assert "must have a name of its own, and name one of the models: emberformer" in told


# -- a killed run -------------------------------------------------------------------------------------------------


def start_training(profile: str, root: Path, *settings: str) -> warm.Process:
    command = ["flows", "run", "wildfire", "-p", profile, "--engine", "inline"]
    sets = [word for setting in settings for word in ("--set", setting)]
    return warm.start(*command, *sets, MILLRACE_ROOT=str(root))


def kill_at_a_step(process: warm.Process, root: Path, step: int) -> None:
    """Kill a training, which saves at every step, when it has done so many."""
    deadline = time.monotonic() + 400
    while not [*(root / "fire_model").glob(f"*.partial/.scratch/checkpoints/step-{step:08d}")]:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not AssetStore(root).assets("fire_model"), "the kill came before the end"


def test_a_training_gives_the_same_bytes_however_it_is_disturbed(finished, profile, tmp_path):
    roots = [copy_of(finished, tmp_path / name, "fire_model") for name in "ab"]
    with_checkpoints = "execution.checkpoint_steps=1"
    killed, beside = (start_training(profile, root, with_checkpoints) for root in roots)
    kill_at_a_step(killed, roots[0], 3)
    assert plan(profile, roots[0])[STAGES[5]].startswith("RESUME")
    kill_at_a_step(start_training(profile, roots[0], with_checkpoints), roots[0], 9)
    result = run(profile, roots[0])
    assert re.search(r"continues after step \d+ of 16", result.stdout)
    assert beside.wait() == 0
    for root in roots:
        assert only(root, "fire_model").fingerprint == only(finished, "fire_model").fingerprint


@pytest.mark.long
def test_an_asset_says_what_its_bytes_depend_on(finished, profile, tmp_path):
    (machine,) = only(finished, "fire_model").manifest.machines
    assert machine.keys() == {"cpu", "threads", "ranks", "torch"}
    assert machine["threads"] == "1"
    assert not only(finished, "fire_cache").manifest.machines, "the same anywhere"
    words = f"cpu {machine['cpu']} threads 1 ranks 1 torch {machine['torch']}"
    assert f"made on {words}" in plan(profile, finished)[STAGES[5]]
    assert words in " ".join(millrace("show", "fire_model", root=finished).stdout.split())
    root = copy_of(finished, tmp_path / "root", "fire_evaluation_report", "fire_model")
    kill_at_a_step(start_training(profile, root, "execution.checkpoint_steps=1"), root, 13)
    run(profile, root, "--set", "execution.threads=2")
    assert [m["threads"] for m in only(root, "fire_model").manifest.machines] == ["1", "2"]


# -- predict-fire --------------------------------------------------------------------------------------------------


def test_a_prediction_lies_where_the_fire_is_and_an_archive_gives_the_same(finished, tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    common = ["predict-fire", FIRE, "--from", "0", "--ahead", "2", "-o"]
    told = millrace(*common, str(own), root=finished)
    assert told.returncode == 0, told.stderr
    assert re.search(r"frame 1: [\d.]+ ha burnt; growth-F1 ([\d.]+|undefined), IoU [\d.]+", told.stdout)
    part = next(f.part for f in FireSplit.load(only(finished, "fire_split").folder).fires if f.name == "sequence_001")
    words = {"train": "was trained on", "validation": "was chosen by", "test": "was never shown", None: "leaves this"}
    assert words[part] in told.stdout
    again = millrace(*common, str(other), "--archive", str(archive_of(finished)), root=finished)
    assert again.returncode == 0, again.stderr
    record = load_runs(AssetStore(finished))[0]
    assert (record.pipeline, record.state) == ("predict-fire", "Completed")
    assert {name.split("/")[0] for name in record.leads_to} == {"fire_model", "fire_records", "fire_cache"}
    assert [(raw.name, raw.files > 0) for raw in record.inputs] == [("fire_archive", True)]
    names = sorted(path.name for path in own.iterdir())
    frames = [f"sequence_001_from_000_to_{frame:03d}" for frame in (1, 2)]
    assert names == sorted([*(f"{f}.{kind}" for f in frames for kind in ("png", "tif")), "sequence_001_from_000.json"])
    assert {n: (own / n).read_bytes() for n in names} == {n: (other / n).read_bytes() for n in names}
    indices = json.loads((archive_of(finished) / "landscape" / "indices.json").read_text())
    y0, y1, x0, x1 = indices[FIRE]
    with (
        rasterio.open(archive_of(finished) / "landscape" / "Input_Geotiff.tif") as landscape,
        rasterio.open(own / f"{frames[0]}.tif") as written,
    ):
        assert written.crs == landscape.crs
        assert (written.height, written.width) == (y1 - y0, x1 - x0)
        assert written.xy(0, 0) == pytest.approx(landscape.xy(y0, x0))
        assert written.res == landscape.res
        probability, burnt, before = (written.read(band, masked=True) for band in (1, 2, 3))
        assert (probability.min() >= 0) & (probability.max() <= 1)
        assert np.all(burnt >= before), "nothing un-burns"
        assert written.tags()["model"] == only(finished, "fire_model").name
    facts = json.loads((own / "sequence_001_from_000.json").read_text())
    assert [entry["frame"] for entry in facts] == [1, 2]
    assert all(0 <= entry["scores"]["iou"] <= 1 for entry in facts)


def changed_archive(finished: Path, folder: Path, fuels: dict[int, int], **profile: Any) -> Path:
    """Return a copy of the archive with some fuels in place of others, and another profile of its raster."""
    shutil.copytree(archive_of(finished), folder)
    path = folder / "landscape" / "Input_Geotiff.tif"
    path.chmod(0o644)
    with rasterio.open(path) as file:
        settings, bands, names = file.profile | profile, file.read(), file.descriptions
    band = bands[names.index("fuels")]
    for old, new in fuels.items():
        band[band == old] = new
    with rasterio.open(path, "w", **settings) as file:
        file.write(bands)
        file.descriptions = names
    return folder


@pytest.mark.input_shape(format="GeoTIFF", shape="an archive without a fuel of the training data", outcome="read")
def test_an_archive_that_changed_is_predicted_and_the_model_knows_its_fires_again(finished, tmp_path):
    root = copy_of(finished, tmp_path / "root")
    split = only(root, "fire_split").folder
    gone, other = [code for code in Statistics.load(split).classes[0].codes if code > 100][:2]
    archive = changed_archive(finished, tmp_path / "archive", {gone: other})
    parts = FireSplit.load(split)
    known = parts.part("train")[0].name
    longest = max(parts.part("test"), key=lambda fire: len([*(archive / "isochrones" / fire.name).iterdir()])).name
    for kind in ("fire_frames", "isochrones"):
        max((archive / kind / longest).iterdir()).unlink()

    def told(fire: str) -> str:
        asked = ("predict-fire", fire, "--archive", str(archive), "-o", str(tmp_path / "out"))
        result = millrace(*asked, root=root)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "which was trained on this fire" in told(known)
    assert "whose data have no such fire" in told(longest)
    shutil.rmtree(split)
    assert "it is not known whether it was trained on this fire" in told(known)


def test_pixels_of_another_size_are_refused_where_the_model_was_told_its_own(finished, tmp_path, monkeypatch, capsys):
    root = copy_of(finished, tmp_path / "root")
    path = only(root, "fire_model").folder / "config.json"
    config = json.loads(path.read_text())
    config["model"]["decoding"]["cell_metres"] = config["model"]["spec"]["cell_metres"] = 60.0
    path.chmod(0o644)
    path.write_text(json.dumps(config))
    moved = rasterio.Affine(20, 0, 300_000, 0, -20, 4_600_000)
    archive = changed_archive(finished, tmp_path / "archive", {}, transform=moved)
    out = ("-o", str(tmp_path / "out"))
    for asked in (
        ("predict-fire", FIRE, "--archive", str(archive), *out),
        ("evaluate", "fire_model", "--on", str(archive)),
    ):
        said = refused(monkeypatch, capsys, root, *asked)
        assert "the archive's pixels are 20 m wide, but the model was trained on 60 m" in said


def test_a_fire_that_stands_still_has_no_growth_score(finished):
    facts = {"frame": 4, "predicted_hectares": 2.0, "scores": {"growth_f1": None, "iou": 1.0}}
    assert describe(facts) == "frame 4: 2.0 ha burnt; growth-F1 undefined, IoU 1.000"
    assert describe(facts | {"scores": None}).endswith("beyond the record")


def test_the_model_with_the_best_validation_is_taken_unless_one_is_named(finished, tmp_path):
    store, manifest = AssetStore(tmp_path), only(finished, "fire_model").manifest
    with pytest.raises(ValueError, match="no fire_model is below"):
        best_model(store)
    for age, (key, split, score) in enumerate((("c" * 24, "new", 0.4), ("b" * 24, "new", 0.7), ("a" * 24, "old", 0.9))):
        split_record = InputRecord(name="split", kind="fire_split", key=split, fingerprint="f")
        changed = manifest.model_copy(update={"key": key, "inputs": (split_record,), "metrics": {"growth_f1": score}})
        path = store.asset("fire_model", key).folder / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(sealed(changed))
        os.utime(path, (2000 - age, 2000 - age))
    assert best_model(store).key == "b" * 24


def test_faults_of_predict_fire_are_one_sentence(finished, tmp_path, monkeypatch, capsys):
    broken = tmp_path / "archive"
    shutil.copytree(archive_of(finished), broken)
    path = broken / "landscape" / "Input_Geotiff.tif"
    with rasterio.open(path) as file:
        settings, bands, names = file.profile, file.read(), file.descriptions
    path.chmod(0o644)
    with rasterio.open(path, "w", **{**settings, "count": len(bands) - 1}) as file:
        file.write(bands[:-1])
        file.descriptions = names[:-1]
    for arguments, sentence in (
        (["77"], "there is no fire 77"),
        ([FIRE, "--from", "40"], "there is no frame 40 to start from"),
        ([FIRE, "--archive", str(tmp_path)], f"--archive: {tmp_path} is no fire archive"),
        ([FIRE, "--archive", str(broken)], "the model was trained on"),
        ([FIRE, "--model", "fire_cache"], "fire_cache"),
    ):
        said = refused(monkeypatch, capsys, finished, "predict-fire", *arguments, "-o", str(tmp_path / "out"))
        assert sentence in said
    assert not (tmp_path / "out").exists()


@pytest.mark.input_shape(format="fire frames", shape="a fire left out, asked for again", outcome="refused")
def test_a_fire_that_was_left_out_has_its_reason_in_every_run(finished, tmp_path, monkeypatch, capsys):
    archive = tmp_path / "archive"
    shutil.copytree(archive_of(finished), archive)
    image = archive / "isochrones/sequence_002/iso_001.png"
    image.chmod(0o644)
    image.write_bytes(image.read_bytes()[:-30])
    for name in ("2", "sequence_002", "2"):
        asked = ("predict-fire", name, "--archive", str(archive), "-o", str(tmp_path / "out"))
        said = refused(monkeypatch, capsys, finished, *asked)
        assert re.search(
            rf"there is no fire {name} in the cache: it was left out, sequence_002 .*iso_001.png cannot", said
        )
    assert not (tmp_path / "out").exists()


def test_predictions_on_a_full_or_read_only_disk_are_one_sentence_and_no_half_files(finished, tmp_path):
    asked = ("predict-fire", FIRE, "-o")
    with small_disk(tmp_path / "full", 4):
        fill(tmp_path / "full").chmod(0o400)
        full = millrace(*asked, str(tmp_path / "full"), root=finished)
        assert [path.name for path in (tmp_path / "full").iterdir()] == ["filler"]
    said = (
        r"error: \S+/full/sequence_001_\S+\.tif: there is no space left on the disk of \S+, .* 0 B are free, and more"
    )
    assert re.match(said, full.stderr), full.stderr
    (tmp_path / "fixed").mkdir()
    with read_only(tmp_path / "fixed"):
        fixed = millrace(*asked, str(tmp_path / "fixed"), root=finished)
    assert re.match(r"error: \S+/fixed\S*: Read-only file system; make it writable", fixed.stderr), fixed.stderr
    (tmp_path / "file").write_text("")
    taken = millrace(*asked, str(tmp_path / "file" / "out"), root=finished)
    assert re.match(r"error: \S+/file/out: Not a directory; choose another place", taken.stderr), taken.stderr
    assert (full.returncode, fixed.returncode, taken.returncode) == (1, 1, 2)
    assert (len(full.stderr.splitlines()), len(fixed.stderr.splitlines())) == (1, 1)


# -- sweeps --------------------------------------------------------------------------------------------------------

LAYERS, RATE = "models.emberformer.model.num_layers", "models.emberformer.training.learning_rates.spatial"


def write_sweep(folder: Path, profile: str) -> Path:
    """Write a sweep of two trials, and two phases of it that search for one parameter each."""
    common = {
        "command": ["${env}", "millrace", "run", "wildfire", "--profile", profile, "--set", "models.emberformer.x=1"],
        "metric": {"name": "val/growth_f1", "goal": "maximize"},
        "method": "grid",
    }
    common["command"] = common["command"][:6]
    (folder / "small").mkdir(parents=True)
    for name, parameters in {
        "small": {LAYERS: {"values": [1, 2]}, RATE: {"value": 3.0e-3}},
        "small/1_layers": {LAYERS: {"values": [1]}},
        "small/2_rates": {RATE: {"values": [3.0e-3]}},
    }.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**common, "name": name, "parameters": parameters}))
    return folder / "small.yaml"


def test_a_model_is_judged_again_by_name_on_its_own_fires_and_on_those_of_another_archive(finished, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished, root)
    store = AssetStore(root)
    report = store.assets("fire_evaluation_report")[-1]  # of the pipeline; other tests add theirs
    model = next(record.key for record in report.manifest.inputs if record.kind == "fire_model")
    before = {kind: len(store.assets(kind)) for kind in ("fire_evaluation_report", "fire_model")}

    again = millrace("evaluate", model, root=root)
    assert again.returncode == 0, again.stderr
    assert "HIT" in again.stdout
    assert len(store.assets("fire_evaluation_report")) == before["fire_evaluation_report"]

    other = tmp_path / "archive"
    shutil.copytree(archive_of(finished), other)
    known = [entry.name for entry in FireSplit.load(only(store, "fire_split").folder).fires if entry.part != "test"]
    for gone in sorted(other.rglob("sequence_*"))[::2]:
        if gone.is_dir() and gone.name not in known:
            shutil.rmtree(gone)
    refused = millrace("evaluate", model, "--on", str(other), root=root)
    assert refused.returncode == 2
    assert "fires are among those that the model was trained or chosen on: sequence_" in refused.stderr
    for gone in sorted(other.rglob("sequence_*")):
        if gone.is_dir() and gone.name in known:
            shutil.rmtree(gone)
    judged = millrace("evaluate", model, "--on", str(other), root=root)
    assert judged.returncode == 0, judged.stderr
    assert "emberformer growth_f1: 0." in judged.stdout
    assert len(store.assets("fire_evaluation_report")) == before["fire_evaluation_report"] + 1
    assert len(store.assets("fire_model")) == before["fire_model"], "nothing is trained"
    fresh = store.assets("fire_evaluation_report")[0]
    scores, first = (json.loads((asset.folder / "scores.json").read_text()) for asset in (fresh, report))
    caches = {record.name: store.asset(record.kind, record.key) for record in fresh.manifest.inputs}
    judged_on, trained_on = (len(TokenCache.open(caches[name].folder).names) for name in ("on", "cache"))
    assert scores["parts"]["test"]["fires"] == judged_on < trained_on
    assert scores["parts"]["validation"] == first["parts"]["validation"], "thresholds come from where they always do"
    assert fresh.manifest.config["evaluation"] == report.manifest.config["evaluation"]


def test_what_cannot_be_judged_is_one_sentence(finished, monkeypatch, capsys):
    said = refused(monkeypatch, capsys, finished, "evaluate", "fire_cache")
    assert "is no model that can be judged; name one of answerer, answerer_packed, fire_model, fire_model_int8" in said
    assert "no asset '/nowhere'" in refused(monkeypatch, capsys, finished, "evaluate", "fire_model", "--on", "/nowhere")


@pytest.mark.long
def test_a_sweep_finds_the_best_and_says_how_to_run_it(finished, profile, tmp_path):
    root = copy_of(finished, tmp_path / "root", "fire_evaluation_report")
    sweep = write_sweep(tmp_path, profile)
    result = millrace("sweep", str(sweep), root=root)
    assert result.returncode == 0, result.stderr
    assert len(re.findall("^RUN +fire_training", result.stdout, re.MULTILINE)) == 1, (
        "one combination is the profile's, which is trained already"
    )
    assert (root / ".sweeps" / "small.sqlite").is_file()
    values = {
        asset.manifest.config["recipe"]["model"]["num_layers"]: asset.manifest.metrics["growth_f1"]
        for asset in AssetStore(root).assets("fire_model")
    }
    assert values.keys() == {1, 2}
    line = result.stdout.strip().splitlines()[-1]
    (best,) = (layers for layers in values if f"{LAYERS}={layers}" in line)
    assert values[best] == max(values.values())
    for layers, value in values.items():
        state = "best" if layers == best else "done"
        assert re.search(rf"^\d\s+{layers}\s+{value:.4f}\s+{state}\s*$", result.stdout, re.MULTILINE)
    assert line.startswith(f"millrace run wildfire --profile {profile} --set ")
    repeated = millrace("plan", *shlex.split(line)[2:], root=root).stdout
    assert re.search(r"HIT\s+fire_training", repeated)
    again = millrace("sweep", str(sweep), root=root)
    assert "trial with" not in again.stdout, "the study is complete"
    assert again.stdout.strip().splitlines()[-1] == line


def test_a_phase_takes_over_the_best_of_those_before_it(finished, profile, tmp_path, monkeypatch, capsys):
    root = copy_of(finished, tmp_path / "root")
    sweep = str(write_sweep(tmp_path, profile))
    early = ["sweep", sweep, "--phase", "2_rates", "--from-best", "1_layers"]
    assert "--from-best 1_layers" in refused(monkeypatch, capsys, root, *early)
    assert millrace("sweep", sweep, "--phase", "1_layers", root=root).returncode == 0
    later = millrace("sweep", sweep, "--phase", "2_rates", root=root)
    assert later.returncode == 0, later.stderr
    assert f"fixed by phase 1_layers: {LAYERS}=1" in later.stdout
    assert f"--set {LAYERS}=1" in later.stdout.strip().splitlines()[-1]
    other = ["sweep", sweep, "--phase", "2_rates", "--set", "models.emberformer.inputs.history=2"]
    assert "history 3 -> 2" in refused(monkeypatch, capsys, root, *other)


def test_faults_of_a_sweep_are_one_sentence(profile, tmp_path, monkeypatch, capsys):
    sweep = str(write_sweep(tmp_path, profile))
    for arguments, sentence in (
        (["emberformr"], "there is no sweep 'emberformr'; there are: emberformer"),
        ([sweep, "--phase", "3"], "has no phase '3'"),
        ([sweep, "--set", f"{LAYERS}=2"], "searches this field"),
        ([sweep, "--set", "models.emberformer.x=2"], "models.emberformer.x: there is no such field"),
        (
            [sweep, "--set", f"{RATE.replace('spatial', 'decoder')}=1.0e-3"],
            "the parameter groups are spatial, temporal",
        ),
        (["emberformer", "--set", "source.path=/nothing"], "/nothing is no fire archive"),
    ):
        assert sentence in refused(monkeypatch, capsys, tmp_path / "root", "sweep", *arguments)
    assert not list(tmp_path.rglob("*.sqlite")), "a study begins only when its trials can"
    assert "millrace sweep emberformer --phase" in " ".join(millrace("sweep", "--help", root=tmp_path).stdout.split())


@pytest.mark.long
def test_a_run_of_a_wandb_agent_takes_its_parameters_and_reports_a_cached_training(finished, profile, tmp_path):
    root = copy_of(finished, tmp_path / "root")
    parameters = tmp_path / "parameters.yaml"
    agent = {
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_RUN_ID": "run0",
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
        "WANDB_MODE": "offline",
    }
    parameters.write_text(yaml.safe_dump({LAYERS: {"value": 0}}))
    refused = millrace("run", "wildfire", "-p", profile, "--engine", "inline", root=root, **agent)
    assert refused.returncode == 2
    assert "num_layers" in refused.stderr, "the agent's parameters reach the configuration"
    parameters.write_text(yaml.safe_dump({LAYERS: {"value": 1}}))
    assert "7 stages: 0 worked" in run(profile, root, **agent).stdout
    records = wandb_records(next((root / ".wandb" / "wandb").glob("offline-run-*/*.wandb")))
    items = [item for r in records if r.WhichOneof("record_type") == "history" for item in r.history.item]
    logged = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in items}
    assert logged["val/growth_f1"] == only(root, "fire_model").manifest.metrics["growth_f1"]
    assert "val/samples_per_second" not in logged

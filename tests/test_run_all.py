"""Everything in one process: `millrace run all`, branches side by side, and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.runs import load_runs
from storage.assets import AssetStore
from tasks.session import Session
from tasks.stage import side_by_side
from tasks.units import cores
from tests.command import millrace
from tests.conftest import REPOSITORY

SMALL = [
    "weather.source.days=8", "weather.source.resolution=2", "weather.mae=null", "weather.captions=null",
    "weather.languages={}", "weather.narrators={}", "weather.windows={time: 4, height: 8, width: 8, stride_time: 4, "
    "stride_height: 8, stride_width: 8, max_nan_share: 1.0}", "weather.splits.cycles=1",
    "wildfire.source={kind: sample, fires: 16, rows: 200, columns: 220, largest_crop: 64, max_frames: 5}",
    "wildfire.models={}",
    "microvlm.vlm=null", "microvlm.source.images=24",
    "microvlm.images_per_shard=24", "microvlm.fetching.deadline_seconds=1",
    "trm_vlm.alignment=null", "trm_vlm.answering=null", "trm_vlm.source.images=24",
    "trm_vlm.images_per_shard=24", "trm_vlm.fetching.deadline_seconds=1",
]  # fmt: skip
PIPELINES = {"weather", "wildfire", "microvlm", "trm_vlm"}


def run_all(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    settings = [word for override in (*SMALL, *more) for word in ("--set", override)]
    return millrace("run", "all", "--engine", "inline", "--workers", "inline", *settings, root=root)


def test_all_pipelines_run_in_one_process_and_one_that_fails_stops_no_other(tmp_path):
    root = tmp_path / "assets"
    failed = run_all(root, "wildfire.source={kind: archive, path: nowhere}")
    assert failed.returncode == 2
    assert re.search(r"error: wildfire: .*nowhere", failed.stderr)
    assert {r.pipeline: r.state for r in load_runs(AssetStore(root))} == dict.fromkeys(PIPELINES, "Completed") | {
        "wildfire": "Failed"
    }
    whole = run_all(root)
    assert whole.returncode == 0, whole.stderr
    assert len({r.pid for r in load_runs(AssetStore(root))[:4]}) == 1
    assert re.search(r"about [\d.]+ minutes on two cores where nothing is cached; millrace report all", whole.stdout)
    assert re.search(r"^wildfire  RUN +fire_cache", whole.stdout, re.MULTILINE)
    assert re.search(r"^weather   HIT +era5_windows", whole.stdout, re.MULTILINE)
    assert re.search(r"done  \d+ stages: 5 worked", whole.stdout), whole.stdout
    told = millrace("report", "all", root=root)
    pages = re.findall(r"report: (\S+)", told.stdout)
    assert {Path(page).stem for page in pages} == PIPELINES
    assert all(page in whole.stdout for page in pages), "the run told where they will be"


def test_commands_factorise_in_one_thread_which_waits_for_no_other():
    asked = (
        "import flows.commands.cli, psutil, sys; me = psutil.Process(); assert 'numpy' not in sys.modules; "
        "before = me.num_threads(); import numpy; print(me.num_threads() - before)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    told = subprocess.run(
        [sys.executable, "-c", asked], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert told.stdout.strip() == "0", told.stderr


def test_a_plan_of_all_pipelines_imports_no_heavy_library(tmp_path):
    heavy = {"torch", "prefect", "matplotlib", "transformers", "wandb", "pandas", "rasterio", "xarray", "aiohttp"}
    asked = (
        "import sys; sys.argv = ['millrace', 'plan', 'all', '-p', 'demo']\n"
        "from flows.commands.cli import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        f"print(sorted({heavy} & sys.modules.keys()))"
    )
    environment = os.environ | {"MILLRACE_ROOT": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", asked], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert "answerer_training" in told.stdout, told.stderr
    assert told.stdout.splitlines()[-1] == "[]", told.stderr


def test_overrides_of_all_begin_with_a_pipeline(tmp_path):
    refused = millrace("run", "all", "--set", "seed=1", root=tmp_path)
    assert refused.returncode == 2
    assert "with all, begin with a pipeline's name: weather, " in refused.stderr


def test_branches_run_at_the_same_time_and_give_what_they_came_to_in_order(session: Session):
    meeting = threading.Barrier(2, timeout=300)
    with session.active():
        assert side_by_side([lambda: (meeting.wait(), "a")[1], lambda: (meeting.wait(), "b")[1]], 2) == ["a", "b"]
        assert side_by_side([lambda: 1, lambda: 2, lambda: 3], 1) == [1, 2, 3]


def test_branches_that_need_transformers_at_the_same_time_get_it_whole(tmp_path):
    command = [sys.executable, "-c", "from tests.spine.racing import race; race()", str(tmp_path)]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


def test_a_branch_that_fails_lets_the_others_end_and_no_further_one_begin(session: Session):
    ended: list[str] = []

    def fails() -> None:
        raise ValueError("broken")

    def goes_on() -> None:
        time.sleep(0.3)
        ended.append("b")

    with session.active(), pytest.raises(ValueError, match="broken"):
        side_by_side([fails, goes_on, lambda: ended.append("c"), lambda: ended.append("d")], 2)
    assert "b" in ended
    assert "d" not in ended


@pytest.mark.long
@pytest.mark.skipif(cores() < 2, reason="one core has no room for two trainings")
def test_ctrl_c_ends_trainings_that_run_side_by_side_and_the_next_run_goes_on(tmp_path):
    model = "{kind: conv_head_2d, width: 4}"
    training = "{epochs: 400, steps_per_epoch: 4, batch_size: 2, learning_rates: {temporal: 0.001, spatial: 0.001}}"
    recipe = f"{{model: {model}, training: {training}}}"
    settings = [s.removeprefix("wildfire.") for s in SMALL if s.startswith("wildfire.source")]
    settings += [f"models={{a: {recipe}}}", "seeds=[0, 1]", "tokens.patch=8"]
    settings += ["execution={threads: 1, checkpoint_steps: 4, wandb: {mode: disabled}}"]
    words = [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "run", "wildfire", "--engine", "inline", "--workers", "inline", *words],
        cwd=REPOSITORY, env=os.environ | {"MILLRACE_ROOT": str(tmp_path)}, stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    deadline = time.monotonic() + 400
    while len({path.parts[-4] for path in tmp_path.glob("fire_model/*.partial/.scratch/checkpoints/step-*")}) < 2:
        assert time.monotonic() < deadline, "two trainings at once"
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=400) == 130
    (record,) = load_runs(AssetStore(tmp_path))
    assert record.state == "Cancelled"
    plan = millrace("plan", "wildfire", *words, root=tmp_path).stdout
    steps = re.findall(r"^RESUME (\d+)/1600 +fire_training a-\d", plan, re.MULTILINE)
    assert len(steps) == 2
    assert all(int(step) >= 4 for step in steps), "the step of the newest checkpoint"

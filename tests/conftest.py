"""Fixtures that many tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: test processes share the cores

import hypothesis
import pytest

from storage.assets import AssetStore
from tasks.progress import Silent
from tasks.session import Session
from tasks.units import Workers, cores
from tests import warm
from tests.spine.s3_server import BUCKET, s3_server

REPOSITORY = Path(__file__).parent.parent
sys.dont_write_bytecode = False  # for pytest to rewrite the assertions of a file once, whatever the environment says
warm.forget_power_cuts()
warm.remember_code()
warm.draw_coarsely()
hypothesis.settings.register_profile("millrace", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("millrace")


def shared_data(name: str) -> Path:
    """Return real data in `shared/data` beside the repository, or where MILLRACE_SHARED_DATA says, or skip the test."""
    place = Path(os.environ.get("MILLRACE_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / name
    if not place.is_dir():
        pytest.skip(f"there is no real data at {place}; set MILLRACE_SHARED_DATA to the folder that holds {name}/")
    return place


@pytest.fixture(scope="session", autouse=True)
def warm_trainings() -> None:
    """Let the stages of this process fork their trainings: importing anew would last longer than most of them."""
    if warm.AVAILABLE:
        warm.start_trainings_warm()


@pytest.fixture(scope="session")
def era5_data() -> Path:
    """Real ERA5 files."""
    return shared_data("era5")


@pytest.fixture
def store(tmp_path: Path) -> AssetStore:
    return AssetStore(tmp_path / "assets")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of an S3 server."""
    with s3_server() as address:
        yield address


@pytest.fixture
def url(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A root on the S3 server for every test, and a cache folder as a machine has it."""
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    for name, value in {**credentials, "AWS_ENDPOINT_URL": address, "MILLRACE_CACHE": str(tmp_path / "one")}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def session(store: AssetStore) -> Session:
    return Session(store, Silent(), workers=Workers("inline"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run one process more than there are cores: many tests wait for others, or for a clock."""
    return min(4, cores() + 1)


def pytest_collection_finish() -> None:
    """Let the garbage collector go by what is imported and collected, which stays to the end."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


LONGEST = (
    "tests/test_serve.py", "tests/fire/test_pipeline.py", "tests/objectives/test_lifecycle.py",
    "tests/kills/test_kills.py", "tests/training/test_launch.py", "tests/test_run_all.py", "tests/test_faults.py",
)  # fmt: skip
"""Files that take minutes: the last to begin is the last to end, and the other processes would have nothing to do."""
FORKLESS = (
    "tests/test_architecture.py", "tests/era5/test_input_shapes.py", "tests/fire/test_models.py",
    "tests/language/test_trm.py", "tests/test_profiles.py", "tests/test_tables.py",
)  # fmt: skip
"""Files without DataLoader workers: the last ones, while one process is with Prefect's in-process harness, whose
threads kill such workers that fork later."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take the longest files first, then a file of each folder after another: processes would wait for the data that
    those of one folder share.
    """
    files: defaultdict[Path, dict[Path, int]] = defaultdict(dict)
    for item in items:
        folder = files[item.path.parent]
        folder.setdefault(item.path, len(folder))

    def turn(item: pytest.Item) -> tuple[int, int, int]:
        name = item.nodeid.partition("::")[0]
        late = 2 if name in FORKLESS else 1 if name == "tests/spine/test_prefect.py" else 0
        place = LONGEST.index(name) if name in LONGEST else len(LONGEST)
        return late, place, files[item.path.parent][item.path]

    items.sort(key=turn)

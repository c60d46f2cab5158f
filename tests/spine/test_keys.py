"""What enters a stage's key besides its own module: what its config values, its inputs and its objective name."""

from __future__ import annotations

import gc
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, ClassVar

import pytest

from configs.base import Added, Config
from storage.hashing import digest
from tasks import code
from tasks.keys import config_in_key, named
from tasks.progress import Silent
from tasks.reasons import Wanted, explain
from tasks.session import Session
from tasks.stage import StageResult, stage
from tests.conftest import REPOSITORY
from tests.spine.toy_pipeline import run_toy


class Pine(Config):
    BUILDS: ClassVar[str] = "named.pine:Pine"
    height: int = 3


class Oak(Config):
    BUILDS: ClassVar[str] = "named.oak:Oak"
    height: int = 3


class Wood(Config):
    trees: dict[str, tuple[Pine | Oak, ...]]


@stage("forest", objective="named.aim:Aim")
def grow(job, *, wood: Wood) -> StageResult:
    (job.folder / "wood.txt").write_text(wood.model_dump_json())
    return StageResult()


@stage("timber")
def fell(job, *, forest, saw: int) -> StageResult:
    (job.folder / "timber.txt").write_text(str(saw))
    return StageResult()


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "code" / "named"
    folder.mkdir(parents=True)
    for name in ("__init__", "pine", "oak", "aim", "helper"):
        (folder / f"{name}.py").write_text("x = 1\n")
    (folder / "pine.py").write_text("from named.helper import x\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(code, "PACKAGES", (*code.PACKAGES, "named"))
    code._path.cache_clear()
    yield folder
    code._path.cache_clear()
    sys.modules.pop("named", None)


def statuses(store, wood: Wood) -> dict[str, str]:
    with Session(store, Silent(), planning=True).active() as session:
        fell(forest=grow(wood=wood), saw=1)
    return {outcome.stage: outcome.status for outcome in session.outcomes}


def make(store, wood: Wood) -> None:
    with Session(store, Silent()).active():
        fell(forest=grow(wood=wood), saw=1)


PINES = Wood(trees={"north": (Pine(),)})


def test_what_a_value_names_is_found_at_any_depth():
    assert sorted(named({"a": [Wood(trees={"n": (Pine(), Oak())})]})) == ["named.oak:Oak", "named.pine:Pine"]


@pytest.mark.parametrize("changed", ["pine", "helper", "aim"])
def test_the_code_that_values_and_stages_name_is_in_the_key_and_in_that_of_who_reads_the_asset(store, package, changed):
    make(store, PINES)
    assert statuses(store, PINES) == {"grow": "HIT", "fell": "HIT"}
    (package / f"{changed}.py").write_text("x = 2\n")
    assert statuses(store, PINES)["grow"] == "RUN"
    make(store, PINES)
    (package / f"{changed}.py").write_text("x = 1\n" if changed != "pine" else "from named.helper import x\n")
    assert statuses(store, PINES) == {"grow": "HIT", "fell": "HIT"}


def test_a_reader_runs_again_with_the_code_that_its_input_names_though_the_bytes_are_the_same(store, package):
    make(store, PINES)
    (package / "pine.py").write_text("x = 2\n")
    make(store, PINES)
    assert len(store.assets("timber")) == 2
    assert len({asset.fingerprint for asset in store.assets("forest")}) == 1


def test_a_sibling_that_no_value_names_is_in_no_key(store, package):
    make(store, PINES)
    (package / "oak.py").write_text("x = 2\n")
    assert statuses(store, PINES) == {"grow": "HIT", "fell": "HIT"}


def test_a_younger_field_makes_nothing_again_where_it_says_what_was_done_before():
    class Old(Config):
        depth: int = 2

    class New(Config):
        depth: int = 2
        warm: Annotated[int, Added(before=0)] = 0

    class Bold(Config):
        depth: int = 2
        warm: Annotated[int, Added(before=0)] = 5

    def key(value) -> str:
        return digest(config_in_key({"recipes": [value]}))

    assert key(New()) == key(Old()) == key(Bold(warm=0))
    assert len({key(New()), key(New(warm=1)), key(Bold())}) == 3


def test_a_model_whose_code_is_gone_is_told_in_one_sentence(store, package):
    make(store, PINES)
    (package / "pine.py").unlink()
    code._path.cache_clear()
    forest = store.assets("forest")[0]
    with (
        Session(store, Silent()).active(),
        pytest.raises(ValueError, match=r"was made by named\.pine:Pine, which is no"),
    ):
        fell(forest=forest, saw=2)


def test_infrastructure_says_so_itself(package):
    (package / "oak.py").write_text("IN_KEY = False\nx = 1\n")
    (package / "pine.py").write_text("from named.oak import x\n")
    assert set(code.Code().reached("named.pine")) == {"named.pine"}


def test_a_younger_field_that_changes_nothing_is_no_reason(store):
    (made,) = (stage for stage in run_toy(store.root).stages if stage.stage == "label")
    asset = store.asset(*made.asset.split("/"))
    manifest = asset.manifest
    inputs = {record.name: record for record in manifest.inputs}
    younger = {**manifest.config, "moss": 0}
    for counts, expected in ((manifest.config, "code changed"), (younger, "config moss absent -> 0; code changed")):
        wanted = Wanted(manifest.stage, manifest.version, "other", younger, counts, inputs)
        assert explain(wanted, [asset]) == expected


def test_threads_may_look_at_code_at_the_same_time():
    texts = [path.read_bytes() for path in sorted((REPOSITORY / "tasks").glob("*.py"))[:6]]
    threshold = gc.get_threshold()

    def pause(phase: str, info: dict[str, int]) -> None:
        time.sleep(0.0005)  # in the middle of what is parsed, where Python 3.11 cannot bear another thread

    gc.callbacks.append(pause)
    gc.set_threshold(200)
    try:
        with ThreadPoolExecutor(4) as pool:
            looks = list(pool.map(lambda text: code._facts(text).digest, texts * 4))
    finally:
        gc.callbacks.remove(pause)
        gc.set_threshold(*threshold)
    assert looks == looks[: len(texts)] * 4

"""The short part of `make fuzz`, and that it would notice what it is there to notice."""

from __future__ import annotations

import errno
import multiprocessing
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from storage.delimited import read_text
from tests.fuzz import campaign as campaigns
from tests.fuzz.campaign import Campaign, load, sandbox
from tests.fuzz.case import Reader, run_case
from tests.fuzz.readers import MODULES, reader


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with sandbox() as folder:
        yield folder


@pytest.mark.parametrize("name", MODULES)
def test_foreign_files_are_read_or_refused_in_a_sentence(name: str, place: Path) -> None:
    one = reader(name)
    outcomes = set()
    for number in range(one.least):
        verdict = run_case(one, number, place)
        assert verdict.outcome != "fault", f"python -m tests.fuzz --reader {name} --at {number}\n{verdict}"
        outcomes.add(verdict.outcome)
    assert "result" in outcomes, "what is made is never read to its end"
    assert not list(place.iterdir())


def toy(read: Callable[[Path, Path], object]) -> Reader:
    return Reader("toy", ("storage.delimited",), lambda random: {"a.txt": random.randbytes(4)}, read)


def write_beside(given: Path, made: Path) -> None:
    (given.parent / "evil").write_text("x")


def refuse(given: Path, made: Path) -> None:
    (given / "a.txt").chmod(0o600)


def without_words(given: Path, made: Path) -> None:
    np.zeros(3).reshape(2, 2)


def fail_to_find(given: Path, made: Path) -> None:
    raise OSError(errno.ENOENT, "no such file")


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (write_beside, "_Escape: open .*evil"),
        (refuse, "_Escape: os.chmod"),
        (without_words, "the words of a library, ValueError: cannot reshape"),
        (fail_to_find, "FileNotFoundError"),
        (lambda given, made: 1 / 0, "ZeroDivisionError"),
        (lambda given, made: (given / "a.txt").read_bytes().decode("ascii"), "the words of a library, UnicodeDecode"),
        (lambda given, made: given.parent.joinpath("x").mkdir(), "_Escape: os.mkdir"),
    ],
)
def test_what_may_not_be_is_a_fault(read: Callable[[Path, Path], object], told: str, place: Path) -> None:
    verdict = next(v for n in range(9) if (v := run_case(toy(read), n, place)).outcome == "fault")
    assert re.match(told, verdict.what)
    assert not list(place.iterdir())


def test_sentences_of_ours_and_results_are_none(place: Path) -> None:
    verdicts = [run_case(toy(lambda given, made: read_text(given / "a.txt")), n, place) for n in range(30)]
    assert {v.outcome for v in verdicts} == {"result", "sentence"}
    assert all("UTF-8" in v.what for v in verdicts if v.outcome == "sentence")


def made(one: Reader, number: int) -> object:
    try:
        return one.case(number)
    except Exception as error:  # what cannot be written is no case
        return str(error)


def test_equal_numbers_make_equal_files() -> None:
    for name in MODULES.keys() - {"netcdf"}:  # HDF5 leaves what lay in memory between its blocks
        one = reader(name)
        first, second = ([made(one, number) for number in range(3, 7)] for _ in range(2))
        assert first == second, name


def eat(given: Path, made: Path) -> object:
    return np.ones(2**28)


def test_a_campaign_survives_a_crash_counts_it_and_goes_on(tmp_path: Path) -> None:
    deadly = toy(eat).case(40)["a.txt"]

    def read(given: Path, made: Path) -> None:
        if (given / "a.txt").read_bytes() == deadly:
            signal.raise_signal(signal.SIGSEGV)

    found = Campaign(tmp_path, print).run(toy(read), 60, 60)
    assert found.next == 60
    assert [(fault.what, fault.first) for fault in found.faults.values()] == [("ended the process (SIGSEGV)", 40)]
    again = Campaign(tmp_path, print).run(toy(read), 60, 60)
    assert again == found == load(tmp_path / "toy.json"), "nothing is run twice"


@pytest.mark.parametrize(("kills", "faults"), [(1, []), (2, ["hangs (SIGKILL)"])])
def test_a_case_that_is_ended_from_outside_is_tried_once_more(tmp_path: Path, kills: int, faults: list[str]) -> None:
    """A machine that stands still for a while looks like a case that hangs."""
    deadly, killed = toy(eat).case(4)["a.txt"], multiprocessing.Value("i", 0)

    def read(given: Path, made: Path) -> None:
        if (given / "a.txt").read_bytes() == deadly and killed.value < kills:
            killed.value += 1
            signal.raise_signal(signal.SIGKILL)

    found = Campaign(tmp_path, print).run(toy(read), 8, 60)
    assert found.next == 8
    assert [fault.what for fault in found.faults.values()] == faults


def test_memory_and_time_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "WARM_UP", 0)
    found = Campaign(tmp_path / "memory", print).run(toy(eat), 2, 60)
    assert next(fault.what for fault in found.faults.values()).startswith("MemoryError")
    monkeypatch.setattr(campaigns, "SLOW", 0.1)
    found = Campaign(tmp_path / "time", print).run(toy(compute), 1, 60)
    assert [fault.what for fault in found.faults.values()] == ["hangs (SIGPROF)"]


def compute(given: Path, made: Path) -> object:
    end = time.process_time() + 3
    while time.process_time() < end:
        pass
    return None

"""The mutation tester: what counts as a fault, what becomes of one, and that its lists are of code that exists."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.mutants.faults import faults_of, mutated
from tests.mutants.forks import OPTIONS
from tests.mutants.judges import HERE, KINDS, load_judges, load_survivors
from tests.mutants.session import changed_line

SOURCE = '''"""Adds 1 and 2."""
from __future__ import annotations

if TYPE_CHECKING:
    import array


@decorated(frozen=True)
def bounded(value: int | None, *, low: int = 0) -> int | str:
    """Return at least 5."""
    total: int | float = value + 1
    for a, b in zip([value], [low], strict=True):
        if a < b:
            raise ValueError(f"{a - 1} is below {b * 2}")
    return total
'''

JUDGED = """
[toy]
module = "toy.py"
tests = ["test_toy.py"]
"""
TOY = """
def total(values, most=10):
    found = 0
    for value in values:
        found += value * 2
    return min(found, most)
"""
TOY_TEST = """
from toy import total

def test_values_are_doubled_and_added():
    assert total([1, 1]) == 4
"""
EXPLAINED = """
[[survivor]]
module = "toy.py"
definition = "total"
before = "def total(values, most=10):"
after = "def total(values, most= {}):"
kind = "tolerance"
why = "as an example"
"""


def changes(source: str) -> set[tuple[str, str]]:
    return {changed_line(source, mutated(source, item)) for item in faults_of(source, "m.py")}


def test_what_runs_is_changed_and_annotations_errors_decorators_and_guards_are_not():
    low, adding, loop, condition = (SOURCE.splitlines()[k].strip() for k in (8, 10, 11, 12))
    assert changes(SOURCE) == {
        *((low, low.replace("= 0", f"= {n}")) for n in ("1", "-1")),
        *((adding, adding.replace("+ 1", change)) for change in ("- 1", "+ 2", "+ 0")),
        (loop, "for a, b in []:"),
        *((condition, condition.replace("a < b", change)) for change in ("a <= b", "a >= b", "not a < b")),
    }


def test_a_fault_keeps_its_name_when_other_lines_come_before_it():
    moved = SOURCE.replace('"""Adds 1 and 2."""', '"""Adds 1 and 2."""\n\nMORE = 7')
    before, after = ({item.job_id for item in faults_of(text, "m.py")} for text in (SOURCE, moved))
    assert before < after
    assert len(after - before) == 2


SCRIPT = """
from tests.mutants.judges import load_judges, load_survivors
from tests.mutants.session import Session, run_module
from tests.mutants.tally import tally

(judged,) = load_judges(here / "judges.toml").values()
session = Session(judged, here / "work")
for most in (3, None):
    run_module(judged, here / "work", most, afresh=False)
    found = {judged: (len(session.faults(None)), list(session.rows()))}
    for known in ([], load_survivors(here / "survivors.toml")):
        print(json.dumps(tally(found, known).json()["all"]))
"""


@pytest.mark.long
def test_faults_are_run_once_found_or_not_and_explained(tmp_path: Path):
    explained = EXPLAINED.format(9) + EXPLAINED.format(11)
    for name, text in {
        "judges.toml": JUDGED,
        "toy.py": TOY,
        "test_toy.py": TOY_TEST,
        "survivors.toml": explained,
    }.items():
        (tmp_path / name).write_text(text)
    program = f"import json, pathlib\nhere = pathlib.Path.cwd()\n{SCRIPT}"
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("toy: ")]
    assert [line.split()[1] for line in told if "/" in line] == [f"{k}/3" for k in (1, 2, 3)] + [
        f"{k}/5" for k in range(1, 6)
    ]
    some, _, all_of_them, known = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert (some["faults"], some["killed"] + some["survived"]) == (8, 3)
    # no test reaches the highest total: 9 and 11 are as good as 10
    assert all_of_them == some | {"killed": 6, "survived": 2, "explained": 0, "score": 0.75}
    assert known == all_of_them | {"explained": 2}
    assert (tmp_path / "toy.py").read_text() == TOY, "files are never changed"


def definitions(path: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)}


def test_modules_and_tests_that_are_listed_exist():
    for judged in load_judges(HERE / "judges.toml").values():
        assert set(judged.only) <= definitions(REPOSITORY / judged.module)
        assert all((REPOSITORY / test).is_file() for test in judged.files())


@pytest.mark.long
def test_the_project_s_own_tests_run_with_the_options_of_a_session():
    judged = load_judges(HERE / "judges.toml")["intervals"]
    command = [sys.executable, "-m", "pytest", *OPTIONS, "--collect-only", *judged.arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("survivor", load_survivors(HERE / "survivors.toml"), ids=lambda s: f"{s.module} {s.after}")
def test_explanations_are_of_lines_that_exist(survivor):
    assert survivor.kind in KINDS
    assert survivor.why
    assert survivor.module in {judged.module for judged in load_judges(HERE / "judges.toml").values()}
    assert survivor.before in map(str.strip, (REPOSITORY / survivor.module).read_text().splitlines())
    assert survivor.before != survivor.after

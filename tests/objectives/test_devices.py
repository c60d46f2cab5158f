"""Every objective computes where its model and its batches are; seen without a GPU, on a device that pretends."""

from __future__ import annotations

import json
import pickle

import pytest

from tests import warm
from tests.objectives.cases import CASES, Data
from tests.objectives.elsewhere import CARELESS

pytestmark = pytest.mark.long
WRAPPED = ("narrator: 4 bits", "vlm: 4 bits")
"""Their weights are of a class of bitsandbytes, which holds no tensors of other classes."""


@pytest.fixture(scope="module")
def outcomes(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How the trainings ended, by name; in a process of their own, which keeps the device."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "data").write_bytes(pickle.dumps(data))
    names = [CARELESS, *(name for name in CASES if name not in WRAPPED)]
    process = warm.start("tests.objectives.elsewhere", str(folder / "data"), str(folder), *names)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads((folder / "outcomes.json").read_text())


@pytest.mark.parametrize("name", [name for name in CASES if name not in WRAPPED])
def test_a_training_takes_nothing_from_another_device(name, outcomes):
    assert not outcomes[name]


def test_a_training_that_does_is_found(outcomes):
    assert "tensors of the CPU, of shape [(1,)]" in outcomes[CARELESS]

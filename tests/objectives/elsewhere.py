"""Trainings on a device that is none: `python -m tests.objectives.elsewhere DATA FOLDER NAME...`.

How each ended is written into `FOLDER/outcomes.json`, by name: empty, or how it failed.
"""

from __future__ import annotations

import json
import math
import pickle
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from configs.training import Execution
from models import reads
from models.fire.batch import FireBatch
from tasks.fire.objective import FireObjective
from tasks.training import live
from tasks.training.loop import Trainer
from tasks.training.publish import publish
from tasks.training.share import Share
from tests.objectives.cases import CASES, Data

CARELESS = "careless"
"""Name of a training that takes tensors from the CPU."""


class Careless(FireObjective):
    """Does what no objective may."""

    def losses(self, model: nn.Module, batch: FireBatch) -> dict[str, Tensor]:
        return {term: (loss + torch.zeros(1)).sum() for term, loss in super().losses(model, batch).items()}


def train(name: str, data: Data, folder: Path) -> None:
    """Take two steps with all that belongs to a training: batches, checkpoints, evaluations and a release."""
    from tests.objectives.pretend import DEVICE, Pretending, Remote  # whoever imports it has the device for good

    careless = replace(CASES["fire: unet_s"], path="tests.objectives.elsewhere:Careless")
    case = careless if name == CARELESS else CASES[name]
    settings = case.settings(epochs=2, steps_per_epoch=1, history_every=1)
    with Pretending():
        one = Trainer(case.objective(data), settings, Execution(), Share(device=DEVICE), folder / "scratch")
        assert all(isinstance(parameter, Remote) for parameter in one.model.parameters())
        one.fit()
        facts = publish(one, folder)
    assert all(math.isfinite(value) for value in facts["metrics"].values()), facts


def main(data: str, folder: str, *names: str) -> None:
    torch.set_num_threads(1)
    reads.FREE_ON = frozenset()
    live.curves = lambda history, say: {}
    given = pickle.loads(Path(data).read_bytes())
    outcomes = {}
    for place, name in enumerate(names):
        try:
            train(name, given, Path(folder) / str(place))
            outcomes[name] = ""
        except Exception:
            outcomes[name] = traceback.format_exc()
    (Path(folder) / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])

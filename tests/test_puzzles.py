"""Puzzles that show what recursion is good for: how they are drawn, and how they are trained."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.puzzle_objective import PlainNet, PuzzleObjective, RecursiveNet, mean_of_unknown
from benchmarks.sudoku import Sudokus
from configs.training import Execution, TrainingConfig
from tasks.training.loop import Trainer
from tasks.training.share import Share

COUNT, CLUES = 60, 12


@pytest.fixture(scope="module")
def drawn() -> dict[str, Sudokus]:
    return {part: Sudokus.draw(part, COUNT, CLUES, seed=0) for part in ("train", "test")}


@pytest.fixture(scope="module")
def files(drawn: dict[str, Sudokus], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("puzzles")
    for part, puzzles in drawn.items():
        puzzles.save(folder / part)
    return {part: str(folder / part) for part in drawn}


def solutions_of(clues: np.ndarray) -> list[tuple[int, ...]]:
    """Return every solution, found by trying whole rows from top to bottom."""
    grid, found = clues.reshape(6, 6), []

    def fits(rows: list[tuple[int, ...]]) -> bool:
        columns = all(len(set(column)) == len(rows) for column in zip(*rows, strict=True))
        if len(rows) % 2:
            return columns
        return columns and len({*rows[-1][:3], *rows[-2][:3]}) == len({*rows[-1][3:], *rows[-2][3:]}) == 6

    def extend(rows: list[tuple[int, ...]]) -> None:
        if len(rows) == 6:
            found.append(tuple(digit for row in rows for digit in row))
            return
        known = grid[len(rows)]
        for row in ROWS[((known == 0) | (known == ROWS)).all(1)]:
            if fits([*rows, tuple(row)]):
                extend([*rows, tuple(row)])

    extend([])
    return found


ROWS = np.array(list(permutations(range(1, 7))))


@pytest.mark.parametrize("part", ["train", "test"])
def test_each_puzzle_has_its_solution_and_no_other(drawn, part):
    for clues, solution in zip(drawn[part].clues[:4], drawn[part].solutions, strict=False):
        assert (clues > 0).sum() == CLUES
        assert solutions_of(clues) == [tuple(solution)]


def test_no_test_puzzle_with_its_digits_renamed_in_any_way_was_trained(drawn):
    trained = {tuple(solution) for solution in drawn["train"].solutions}
    renamings = np.concatenate([np.zeros((720, 1), int), ROWS], 1)
    renamed = {tuple(row) for solution in drawn["test"].solutions for row in renamings[:, solution]}
    assert len(renamed) > 720 * COUNT / 2
    assert not trained & renamed
    same_part = {tuple(row) for row in renamings[:, drawn["train"].solutions[0]]}
    assert trained & same_part


def test_equal_arguments_draw_equal_puzzles_and_a_file_keeps_them(drawn, files):
    again = Sudokus.draw("test", COUNT, CLUES, seed=0)
    assert np.array_equal(again.clues, drawn["test"].clues)
    loaded = Sudokus.load(Path(files["test"]))
    assert np.array_equal(loaded.clues, drawn["test"].clues)
    assert np.array_equal(loaded.solutions, drawn["test"].solutions)


def test_training_renames_digits_and_testing_does_not(files, drawn):
    objective = PuzzleObjective(task(files))
    train, test = objective.source("train"), objective.source("test")
    a, b = train.sample(3, 1), train.sample(3, 2)
    assert not torch.equal(a["answer"], b["answer"])
    assert torch.equal(a["tokens"] == 0, b["tokens"] == 0)
    assert torch.equal(a["answer"] * (a["tokens"] > 0), a["tokens"])
    assert torch.equal(test.sample(3, 1)["answer"], torch.from_numpy(drawn["test"].solutions[3]))


def test_the_loss_of_a_puzzle_is_the_mean_over_its_unknown_cells():
    logits = torch.randn(2, 3, 7)
    rows = {"tokens": torch.tensor([[0, 2, 0], [0, 0, 0]]), "answer": torch.tensor([[1, 2, 3], [4, 5, 6]])}
    losses = -logits.log_softmax(-1)
    first = (losses[0, 0, 1] + losses[0, 2, 3]) / 2
    second = (losses[1, 0, 4] + losses[1, 1, 5] + losses[1, 2, 6]) / 3
    torch.testing.assert_close(mean_of_unknown(logits, rows), torch.stack([first, second]))


def test_the_plain_net_has_as_many_parameters(files):
    recursive, plain = (PuzzleObjective(task(files, plain_layers=layers)).build() for layers in (None, 2))
    assert isinstance(recursive, RecursiveNet)
    assert isinstance(plain, PlainNet)
    assert len({sum(p.numel() for p in net.parameters()) for net in (recursive, plain)}) == 1


def task(files: dict[str, str], plain_layers: int | None = None, **net: Any) -> dict[str, Any]:
    small = {"hidden": 16, "heads": 2, "layers": 2, "inner_steps": 1, "supervision_steps": 4, "positions": 36} | net
    return {**files, "net": small, "plain_layers": plain_layers}


def trainer(files: dict[str, str], folder: Path) -> Trainer:
    objective = PuzzleObjective(task(files, halting=True))
    training = TrainingConfig(epochs=3, steps_per_epoch=8, batch_size=4, accumulation=2, learning_rates={"all": 1e-3},
                              ema_decay=0.9)  # fmt: skip
    return Trainer(objective, training, Execution(device="cpu"), Share(), folder)


def test_killed_amid_carried_supervision_it_ends_with_the_same_bits(files, tmp_path):
    calm = trainer(files, tmp_path / "calm")
    calm.fit()

    class Kill(BaseException):
        pass

    def kill(step: int, steps: int, loss: float | None) -> None:
        if step == 19:
            raise Kill

    killed = trainer(files, tmp_path / "killed")
    killed._on_step = kill
    with pytest.raises(Kill):
        killed.fit()
    resumed = trainer(files, tmp_path / "killed")
    resumed.resume()
    assert resumed.cursor.step == 16
    carried = resumed.objective.state_dict()
    assert not carried["0.state.halted"].all()
    assert carried["1.state.steps"].max() > 1
    resumed.fit()
    states = [one.model.state_dict() | one._own_state() | dict(one.average.tensors()) for one in (calm, resumed)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

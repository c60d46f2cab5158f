"""Puzzles that show what recursion is good for: how they are drawn, and how they are trained."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.bench import Bench
from benchmarks.programs import puzzle_trainer
from benchmarks.puzzle_objective import PlainNet, PuzzleObjective, RecursiveNet, mean_of_unknown
from benchmarks.sudoku import PARTS, Sudokus
from benchmarks.suite import puzzles as benchmark
from configs.training import Execution, TrainingConfig
from tasks.training.loop import Trainer
from tasks.training.share import Share

COUNT, CLUES = 60, 12


@pytest.fixture(scope="module")
def drawn() -> dict[str, Sudokus]:
    return {part: Sudokus.draw(part, COUNT, CLUES, seed=0) for part in PARTS}


@pytest.fixture(scope="module")
def files(drawn: dict[str, Sudokus], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("puzzles")
    for part, puzzles in drawn.items():
        puzzles.save(folder / part)
    return {"train": str(folder / "train"), "judged": str(folder / "test")}


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


@pytest.mark.parametrize("part", PARTS)
def test_each_puzzle_has_its_solution_and_no_other(drawn, part):
    for clues, solution in zip(drawn[part].clues[:4], drawn[part].solutions, strict=False):
        assert (clues > 0).sum() == CLUES
        assert solutions_of(clues) == [tuple(solution)]


def test_no_puzzle_with_its_digits_renamed_in_any_way_is_of_another_part(drawn):
    renamings = np.concatenate([np.zeros((720, 1), int), ROWS], 1)
    renamed = {
        part: {tuple(row) for solution in puzzles.solutions for row in renamings[:, solution]}
        for part, puzzles in drawn.items()
    }
    for part, others in permutations(PARTS, 2):
        assert len(renamed[part]) > 720 * COUNT / 2
        assert not {tuple(solution) for solution in drawn[others].solutions} & renamed[part]
        assert {tuple(solution) for solution in drawn[part].solutions} <= renamed[part]


def test_equal_arguments_draw_equal_puzzles_and_a_file_keeps_them(drawn, files):
    again = Sudokus.draw("test", COUNT, CLUES, seed=0)
    assert np.array_equal(again.clues, drawn["test"].clues)
    loaded = Sudokus.load(Path(files["judged"]))
    assert np.array_equal(loaded.clues, drawn["test"].clues)
    assert np.array_equal(loaded.solutions, drawn["test"].solutions)


def test_training_renames_digits_and_testing_does_not(files, drawn):
    objective = PuzzleObjective(task(files))
    train, test = objective.source("train"), objective.source("judged")
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


@pytest.mark.long
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


def test_what_a_net_solves_and_which_cells_it_knows_are_counted_by_depth(files, drawn, tmp_path):
    untrained = trainer(files, tmp_path)
    solved, cells = puzzle_trainer.solved_by_depth(untrained, [1, 3])
    clues, answer = (torch.from_numpy(grid) for grid in (drawn["test"].clues, drawn["test"].solutions))
    with torch.no_grad():
        steps = list(untrained.model.by_depth(clues, 3))
    for depth in (1, 3):
        right = steps[depth - 1].argmax(-1) == answer
        assert solved[depth] == (right | (clues > 0)).all(1).tolist()
        assert cells[depth] == pytest.approx(float(right[clues == 0].double().mean()))


def test_the_best_rate_solves_most_and_of_those_that_solve_as_many_knows_most_cells():
    def answer(solved: list[bool], cells: float, depth: int = 1) -> dict[str, Any]:
        return {"solved": {str(depth): solved}, "cells": {str(depth): cells}}

    tried = {0.1: answer([False, False], 0.4), 0.2: answer([False, False], 0.5), 0.3: answer([False, False], 0.3)}
    assert benchmark.best_rate(tried) == 0.2
    tried[0.3] = answer([False, True], 0.3)
    assert benchmark.best_rate(tried) == 0.3
    tried[0.4] = answer([True, True], 0.2, benchmark.TRAINED_DEPTH)
    assert benchmark.best_rate(tried) == 0.4


def test_the_interval_of_a_share_draws_puzzles_and_seeds():
    lucky = np.repeat([[1.0], [1.0], [0.0], [0.0]], 100, axis=1)
    found = benchmark.share_solved(lucky).estimate()
    assert (found.value, found.low, found.high) == (0.5, 0, 1), "all four draws are of one kind once in eight times"
    random = np.random.default_rng(0)
    equal = np.repeat(random.permutation(np.arange(400) < 100)[None], 4, axis=0).astype(float)
    found = benchmark.share_solved(equal).estimate()
    assert found.value == 0.25
    assert found.high - found.low == pytest.approx(2 * 1.96 * (0.25 * 0.75 / 400) ** 0.5, rel=0.1), "puzzles alone"
    more = np.maximum(equal, random.permutation(np.arange(400) < 40))
    paired = (benchmark.share_solved(more) - benchmark.share_solved(equal)).estimate()
    assert paired.high - paired.low < 0.6 * (found.high - found.low), "puzzles are drawn alike for both"


def test_rates_are_chosen_on_validation_puzzles_and_other_seeds_solve_test_puzzles(tmp_path, monkeypatch):
    """TRM is best with the lowest rate, a plain net with the highest; both solve more of validation puzzles."""
    tasks: list[dict[str, Any]] = []

    def program(name: str, **task: Any) -> dict[str, Any]:
        tasks.append(task)
        count, recursive = (
            len(Sudokus.load(Path(task["config"]["judged"])).clues),
            task["config"]["plain_layers"] is None,
        )
        rate, seed = task["training"]["learning_rates"]["all"], task["training"]["seed"]
        solved = (4 if rate == (1e-3 if recursive else 4e-3) else 1) if seed == 100 else 3 if recursive else seed % 2
        depths = task["depths"] if recursive else [1]
        told = {str(depth): [k < solved for k in range(count)] for depth in depths}
        return {"parameters": 7, "cpu_seconds": 1.0, "solved": told, "cells": dict.fromkeys(told, 0.5)}

    monkeypatch.setattr(benchmark, "run_program", program)
    gain, by_depth = benchmark.run(Bench("puzzles", tmp_path, quick=True))
    chosen, kept = ([t for t in tasks if (t["training"]["seed"] == 100) == choosing] for choosing in (True, False))
    assert len(chosen) == 3 * 3
    assert {Path(t["config"]["judged"]).name for t in chosen} == {"validation-puzzles.bin"}
    assert {Path(t["config"]["judged"]).name for t in kept} == {"test-puzzles.bin"}
    assert [t["training"]["seed"] for t in kept] == [0, 1, 2, 3, 4] * 3
    for t in kept:
        assert t["training"]["learning_rates"]["all"] == (1e-3 if t["config"]["plain_layers"] is None else 4e-3)
    assert gain.value == pytest.approx(3 / 5 - 0.4 / 5)
    assert gain.peer_value == pytest.approx(0.4 / 5)
    assert gain.detail["rates"]["TRM"]["taken"] == 1e-3
    assert "TRM 0.001: 0.800, 0.002: 0.200, 0.004: 0.200, taken 0.001" in gain.notes[-1]
    assert by_depth.value == 0

"""Whether recursion pays where it is known to: Sudokus of 6 x 6 cells with 12 clues and one solution each.

A TRM (2 layers, n = 2, T = 1, up to 8 steps of carried supervision) is trained by the project's loop, and two plain
transformers with it: one with the same parameters and three times as many steps, and one with three times as many
layers and as many steps. So all spend the same compute in training, and the plain ones get a fresh puzzle wherever the
TRM goes on with one. At inference a TRM spends that compute once in every step. No puzzle has an embedding of its own.

Puzzles are for training, validation or testing, disjoint with their digits renamed as well. Every net is trained once
with each of three learning rates, and the one that solves most validation puzzles is taken (with as many solved, the
one with most unknown cells right). With it five others are trained, of other seeds, and solve the test puzzles, which
nothing was chosen by. A puzzle is solved when all of its unknown cells are right. Intervals (95 %) come from resampling
puzzles and seeds, the same for all nets.

The steps that a puzzle stays rise from 1 to 8 between a fifth and three fifths of the training. With 8 from the
beginning, later steps begin with states in which all cells are alike, and the loss stays near guessing for long: after
400 optimiser steps it was 1.66 to 1.79 nats a cell at four learning rates, and 0.76 with one step for each puzzle
(single runs; guessing is 1.79). This and all other settings were found with TRM, on one seed, by what are validation
puzzles now, and hold for all nets. The decay of the moving average is 0.99, as 0.999 would still hold a third of the
initial weights after so few steps.

These are 24 trainings of about three minutes of one core each, an hour and a quarter, so it runs only when named, and
resumes in its folder. `quick` trains all of them for a few steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from benchmarks.process import REPOSITORY, run_program
from benchmarks.sudoku import Part, Sudokus
from storage.files import write_atomic
from tasks.figures import save_figure, subplots
from tasks.intervals import Estimate, Resampled, Resamples

ON_REQUEST = True
CLUES = 12
PUZZLES: Mapping[Part, int] = {"train": 8000, "validation": 512, "test": 512}
RATES = (1e-3, 2e-3, 4e-3)
CHOOSING_SEED = 100
SEEDS = (0, 1, 2, 3, 4)
RESAMPLES = 2000
STEPS = 1200
TRAINED_DEPTH = 8
DEPTHS = (1, 2, 4, 8, 16, 32, 64)
NET = {"hidden": 64, "layers": 2, "heads": 4, "inner_steps": 2, "positions": 36, "supervision_steps": TRAINED_DEPTH}
CALLS = 3
"""Calls of the net in a step: n + 1."""
SUBJECTS: Mapping[str, tuple[int | None, int]] = {
    "TRM": (None, 1),
    "plain, equal parameters": (NET["layers"], CALLS),
    "plain, equal compute": (CALLS * NET["layers"], 1),
}
"""Layers of a plain net, and how many times the steps."""
PICTURE = REPOSITORY / "docs" / "pictures" / "recursion_depth.png"

Solved = NDArray[np.float64]
"""(seeds, puzzles): 1 where a puzzle is solved."""


def run(bench: Bench) -> list[Figure]:
    """Train every net with every rate and then with every seed, or find what was trained."""
    files = _puzzles(bench)
    tried = {name: {rate: _answer(bench, files, name, rate, CHOOSING_SEED) for rate in RATES} for name in SUBJECTS}
    rates = {name: best_rate(answers) for name, answers in tried.items()}
    answers = {name: [_answer(bench, files, name, rates[name], seed) for seed in SEEDS] for name in SUBJECTS}
    by_depth = {depth: _solved(answers["TRM"], depth) for depth in DEPTHS}
    plain = {name: _solved(found, 1) for name, found in answers.items() if name != "TRM"}
    picture = bench.work / PICTURE.name if bench.quick else PICTURE
    _draw(by_depth, plain, picture)
    detail = {
        "solved_by_depth": {
            str(depth): {"mean": rounded(float(solved.mean())), "seeds": solved.mean(1).tolist()}
            for depth, solved in by_depth.items()
        },
        "solved_by_plain": {name: solved.mean(1).tolist() for name, solved in plain.items()},
        "rates": {name: {"tried": {str(rate): _told(answer) for rate, answer in found.items()}, "taken": rates[name]}
                  for name, found in tried.items()},
        "parameters": {name: found[0]["parameters"] for name, found in answers.items()},
        "cpu_seconds": {name: [rounded(one["cpu_seconds"]) for one in found] for name, found in answers.items()},
        "puzzles": PUZZLES, "clues": CLUES, "net": NET, "training": _training(bench, "TRM", rates["TRM"], 0),
    }  # fmt: skip
    return [_gain(bench, by_depth[TRAINED_DEPTH], plain, detail), _depth_gain(bench, by_depth, detail)]


def best_rate(tried: Mapping[float, Mapping[str, Any]]) -> float:
    """Return the rate whose net solves most puzzles, of those that solve as many the one with most cells right."""
    return max(tried, key=lambda rate: tuple(_told(tried[rate]).values()))


def _told(answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the shares of puzzles and of cells that a net gets right, a recursive one after the steps of training."""
    depth = str(TRAINED_DEPTH) if str(TRAINED_DEPTH) in answer["solved"] else "1"
    return {"solved": float(np.mean(answer["solved"][depth])), "cells": answer["cells"][depth]}


def _puzzles(bench: Bench) -> dict[Part, str]:
    files: dict[Part, Path] = {part: bench.work / f"{part}-puzzles.bin" for part in PUZZLES}
    for part, file in files.items():
        if not file.exists():
            count = PUZZLES[part] // 100 if bench.quick else PUZZLES[part]
            bench.say(f"drawing {count} puzzles for {part}")
            Sudokus.draw(part, count, CLUES, seed=0).save(file)
    return {part: str(file) for part, file in files.items()}


def _training(bench: Bench, name: str, rate: float, seed: int) -> dict[str, Any]:
    steps = (3 if bench.quick else STEPS) * SUBJECTS[name][1]
    return {
        "seed": seed, "epochs": 1, "steps_per_epoch": steps, "batch_size": 32, "learning_rates": {"all": rate},
        "weight_decay": 0.1, "warmup_steps": min(50, steps), "final_lr_share": 0.1, "ema_decay": 0.99,
    }  # fmt: skip


def _answer(bench: Bench, files: Mapping[Part, str], name: str, rate: float, seed: int) -> dict[str, Any]:
    """Return what the program says, which is kept; where rates are tried, it is of validation puzzles."""
    folder = bench.work / f"{name.replace(', ', '-').replace(' ', '-')}-{rate:g}-{seed}"
    kept = folder / "answer.json"
    if not kept.exists():
        bench.say(f"training {name}, learning rate {rate:g}, seed {seed}")
        folder.mkdir(exist_ok=True)
        judged = files["validation" if seed == CHOOSING_SEED else "test"]
        answer = run_program(
            "puzzle_trainer",
            config={"train": files["train"], "judged": judged, "net": NET, "plain_layers": SUBJECTS[name][0]},
            training=_training(bench, name, rate, seed),
            scratch=str(folder),
            depths=DEPTHS,
        )
        write_atomic(kept, json.dumps(answer))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def _solved(answers: Sequence[Mapping[str, Any]], depth: int) -> Solved:
    return np.array([answer["solved"][str(depth)] for answer in answers], np.float64)


def share_solved(solved: Solved) -> Resampled:
    """Return the share of solved puzzles, with puzzles and seeds drawn; equally many are drawn alike for all nets."""
    seeds, puzzles = solved.shape
    drawn = Resamples.draw(np.arange(puzzles), RESAMPLES, 0).weights
    runs = [Resampled(float(one.mean()), drawn @ one / puzzles) for one in solved]
    return Resampled.mean(runs, Resamples.draw(np.arange(seeds), RESAMPLES, 1).weights)


def _difference(a: Solved, b: Solved) -> Estimate:
    """Return how many more are solved by a."""
    return (share_solved(a) - share_solved(b)).estimate()


def _gain(bench: Bench, trm: Solved, plain: Mapping[str, Solved], detail: dict[str, Any]) -> Figure:
    gains = {name: _difference(trm, solved) for name, solved in plain.items()}
    equal = "plain, equal parameters"
    notes = [
        f"Over {name}: {gain.value:+.3f}, from {gain.low:+.3f} to {gain.high:+.3f}; that one solves "
        f"{plain[name].mean():.3f} ({_by_seed(plain[name])} by seed)."
        for name, gain in gains.items()
    ]
    return bench.figure(
        "trm_puzzle_gain",
        what="How many more unseen Sudokus a TRM solves than a plain transformer of equal parameters",
        value=rounded(gains[equal].value),
        unit="of all",
        aim="> 0",
        peer="the plain transformer",
        peer_value=rounded(float(plain[equal].mean())),
        peer_unit="of all",
        notes=(
            f"The TRM solves {trm.mean():.3f} of {trm.shape[1]} puzzles after {TRAINED_DEPTH} steps "
            f"({_by_seed(trm)} by seed).",
            *notes,
            f"Learning rates, and what they solve of validation puzzles: {_rates(detail['rates'])}.",
        ),
        detail={**detail, "gains": {name: gain.json() for name, gain in gains.items()}},
    )


def _depth_gain(bench: Bench, by_depth: Mapping[int, Solved], detail: dict[str, Any]) -> Figure:
    deepest = max(by_depth)
    gain = _difference(by_depth[deepest], by_depth[TRAINED_DEPTH])
    curve = ", ".join(f"{depth}: {solved.mean():.3f}" for depth, solved in by_depth.items())
    return bench.figure(
        "trm_puzzle_depth_gain",
        what=f"How many more unseen Sudokus a TRM solves in {deepest} steps than in the {TRAINED_DEPTH} of training",
        value=rounded(gain.value),
        unit="of all",
        notes=(
            f"From {gain.low:+.3f} to {gain.high:+.3f}. Solved by steps: {curve}.",
            "docs/pictures/recursion_depth.png shows it by seed.",
        ),
        detail={**detail, "gain": gain.json()},
    )


def _rates(found: Mapping[str, Any]) -> str:
    """Tell of every net which rates were tried, and which one was taken."""
    told = []
    for name, rates in found.items():
        tried = ", ".join(f"{rate}: {shares['solved']:.3f}" for rate, shares in rates["tried"].items())
        told.append(f"{name} {tried}, taken {rates['taken']:g}")
    return "; ".join(told)


def _by_seed(solved: Solved) -> str:
    return ", ".join(f"{share:.3f}" for share in solved.mean(1))


def _draw(by_depth: Mapping[int, Solved], plain: Mapping[str, Solved], path: Path) -> None:
    """Draw the shares of solved puzzles by depth."""
    figure, axes = subplots(figsize=(7, 4), layout="constrained")
    depths = list(by_depth)
    shares = np.array([solved.mean(1) for solved in by_depth.values()])
    for seed, share in enumerate(shares.T):
        axes.plot(depths, share, color="tab:blue", alpha=0.3, label="its seeds" if seed == 0 else None)
    axes.plot(depths, shares.mean(1), color="tab:blue", marker="o", label="TRM")
    for (name, solved), style in zip(plain.items(), ("--", ":"), strict=True):
        axes.axhline(solved.mean(), color="tab:orange", linestyle=style, label=name)
    axes.axvline(TRAINED_DEPTH, color="grey", linewidth=1, label="depth of training")
    axes.set(xscale="log", ylim=(0, 1), xlabel="steps at inference", ylabel="unseen Sudokus solved")
    axes.set_xticks(depths, labels=list(map(str, depths)))
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8, loc="center right")
    save_figure(figure, path)

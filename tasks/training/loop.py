"""The training loop: everything that shapes the weights is a function of the step, so that a resumed run is exact."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.training import Execution, TrainingConfig
from storage.checkpoints import Checkpoint, Checkpoints
from storage.sampling import sample_seed
from tasks.training.history import History, Interval, total_loss
from tasks.training.loader import MicroBatches, training_batches
from tasks.training.objective import Moment, Objective
from tasks.training.optimiser import MovingAverage, Optimiser, Parameters
from tasks.training.release import write_weights
from tasks.training.share import Share
from tasks.training.tracking import NoTracker, Tracker
from tasks.training.transfer import Ahead, MicroBatch

SHOWN = 4  # metrics in the line that an evaluation prints; the history has all
CURVES_AFTER = 60.0  # seconds between two drawings of the curves; the end has one anyway
BUILD, STEP, EVALUATION = 1, 2, 3  # what random numbers are for; keeps their keys apart
MOST_KEPT = 0.05  # of the initial weights in a moving average at the end


@dataclass
class Cursor:
    """Where a training stands: what a checkpoint holds besides tensors."""

    step: int = 0
    """Optimiser steps done."""
    best: dict[str, Any] | None = None
    """`value`, `step` and `epoch` of the best evaluation so far; its metrics are in the history."""
    peak: float | None = None
    """Best value so far of the metric that may stop the training early."""
    waited: int = 0
    """Evaluations since then."""
    stopped: bool = False
    """Whether the training has ended early."""
    seconds: float = 0.0
    """Time spent training, over all processes so far."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """What a step leaves behind, on the device until somebody looks."""

    step: int
    """From 0."""
    weights: dict[str, float]
    """Denominators of the loss terms, over the whole global batch."""
    losses: Tensor
    """(micro-batches, terms) float64: this rank's sums, in the order of `weights`."""
    norm: Tensor
    """Of the gradient, before clipping."""
    samples: list[list[int]]
    """Of each micro-batch of this rank."""


class Trainer:
    """One training in one rank."""

    def __init__(
        self,
        objective: Objective,
        training: TrainingConfig,
        execution: Execution,
        share: Share,
        scratch: Path,
        say: Callable[[str], None] = lambda text: None,
        on_step: Callable[[int, int, float | None], None] = lambda step, steps, loss: None,
        show: Callable[[str, bytes], None] = lambda name, png: None,
    ) -> None:
        self.objective, self.config, self.share, self.scratch = objective, training, share, scratch
        self.tracker: Tracker = NoTracker()
        self._execution, self._say, self._on_step, self._show = execution, say, on_step, show
        seed_everything(training.seed, BUILD)
        self.model: nn.Module = objective.build().to(share.device)
        if execution.compile:
            objective.compile(self.model)
        self._source = objective.source("train")
        n, batch_size = len(self._source), training.batch_size
        if batch_size % (parts := share.world_size * training.accumulation):
            raise ValueError(
                f"training.batch_size ({batch_size}) must be a multiple of ranks x accumulation ({parts}), so that "
                "all micro-batches are equally large"
            )
        order = MicroBatches(n, batch_size, training.accumulation, training.seed, share, 0, 0)
        self.steps_per_epoch = training.steps_per_epoch or order.steps_per_pass
        self.steps = training.epochs * self.steps_per_epoch
        parameters = Parameters(objective, self.model, training)
        self.optimiser = Optimiser(parameters, training, self.steps_per_epoch)
        self.average = None if training.ema_decay is None else MovingAverage(parameters, training.ema_decay)
        self.cursor, self.interval = Cursor(), Interval()
        self._done: list[StepDone] = []
        self._loss: float | None = None
        self.machines = [share.machine() | ({"compiled": "yes"} if execution.compile else {})]
        self.history = History(scratch / "history.jsonl")
        self._checkpoints = Checkpoints(scratch / "checkpoints", execution.keep_last)
        self._saved_at = self._drawn_at = time.monotonic()
        self.trained = sum(p.numel() for p in parameters.named.values())

    @property
    def samples_per_second(self) -> float:
        """Training samples per second over all processes so far, evaluations and checkpoints not counted."""
        return self.cursor.step * self.config.batch_size / max(self.cursor.seconds, 1e-9)

    # -- the whole of it ---------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train from the newest whole checkpoint, or the beginning, to the end."""
        self.resume()
        cursor = self.cursor
        if self.average is not None and not cursor.step:
            self._say_what_average_keeps(self.config.ema_decay or 0.0)
        batches = self.batches(cursor.step, self.steps)
        while cursor.step < self.steps and not cursor.stopped:
            started = time.monotonic()
            due = self.step(next(batches))
            batches.prefetch()
            if evaluate := self._ends_with_evaluation():
                self.look()
            cursor.seconds += time.monotonic() - started
            self._on_step(cursor.step, self.steps, self._loss)
            if evaluate:
                self.evaluate()
            if due or evaluate:
                self.save()

    def _say_what_average_keeps(self, decay: float) -> None:
        """An average begins with the initial weights; say so where the end would still hold much of them."""
        if (kept := decay**self.steps) > MOST_KEPT:
            self._say(
                f"after {self.steps} steps the moving average still holds {kept:.0%} of the initial weights; an "
                f"ema_decay of {MOST_KEPT ** (1 / self.steps):.4g} would hold {MOST_KEPT:.0%}"
            )

    def batches(self, first: int, stop: int) -> Ahead:
        """Return this rank's micro-batches of the steps from `first` to before `stop`, on its device."""
        config = self.config
        order = MicroBatches(
            len(self._source), config.batch_size, config.accumulation, config.seed, self.share, first, stop
        )
        objective = self.objective
        loaded = training_batches(self.share, self._source, objective.collate, objective.weigher(), order, config.seed)
        return Ahead(loaded, config.accumulation, self.share.device)

    def _ends_with_evaluation(self) -> bool:
        epoch, rest = divmod(self.cursor.step, self.steps_per_epoch)
        return rest == 0 and (epoch % self.config.evaluate_every == 0 or epoch == self.config.epochs)

    # -- one step ----------------------------------------------------------------------------------------------

    def step(self, micro_batches: Sequence[MicroBatch]) -> bool:
        """Do one optimiser step without waiting for the device; return whether a checkpoint is due."""
        step = self.cursor.step
        epoch = step // self.steps_per_epoch
        weights, due = self._denominators(micro_batches)
        if self.optimiser.begin(epoch):
            self.model.train()  # what is frozen may have no dropout
        losses = torch.stack([self._backward(k, micro, weights, epoch) for k, micro in enumerate(micro_batches)])
        norm = self.optimiser.reduce(self.share)
        self.optimiser.step(step)
        average_normalisation(self.model, self.share)
        if self.average is not None:
            self.average.update()
        self.cursor.step += 1
        self._done.append(StepDone(step, weights, losses, norm, [micro.indices for micro in micro_batches]))
        if self.cursor.step % self.config.history_every == 0 or self.cursor.step == self.steps:
            self.look()
            self._write_row()
        return due

    def _denominators(self, micro_batches: Sequence[MicroBatch]) -> tuple[dict[str, float], bool]:
        """Return each term's denominator over the whole global batch, and whether rank 0 wants a checkpoint."""
        names = sorted(micro_batches[0].weights)
        values = [math.fsum(micro.weights[name] for micro in micro_batches) for name in names]
        wanted = float(self.share.leads and self._checkpoint_due())
        *totals, due = self.share.sum_numbers([*values, wanted])
        return dict(zip(names, totals, strict=True)), due > 0

    def _backward(self, k: int, micro: MicroBatch, weights: Mapping[str, float], epoch: int) -> Tensor:
        """Add one micro-batch's gradients; return its loss sums in the order of `weights`."""
        seed = seed_everything(self.config.seed, STEP, self.cursor.step, k, self.share.rank)
        self.objective.moment = Moment(epoch, self.cursor.step, self.steps, k, seed)
        with self._autocast():
            losses = self.objective.losses(self.model, micro.batch)
        assert losses.keys() == weights.keys(), f"losses {sorted(losses)} must be weights {sorted(weights)}"
        coefficients = self.objective.coefficients
        scaled = [
            losses[term] * (factor / weights[term])
            for term in weights
            if weights[term] and (factor := coefficients.get(term, 1.0))
        ]
        if scaled:
            torch.stack(scaled).sum().backward()
        return torch.stack([losses[term].detach().double() for term in weights])

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.share.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def look(self) -> None:
        """Wait for the device and take in what the steps since the last look left there.

        Raises ValueError with the first step, and the samples, where a loss or the gradient is no number.
        """
        if not self._done:
            return
        done, self._done = self._done, []
        sums = torch.stack([step.losses for step in done]).cpu()
        norms = torch.stack([step.norm for step in done]).tolist()
        totals = self.share.sum(sums.sum(1)).tolist()
        for step, own, total, norm in zip(done, sums, totals, norms, strict=True):
            losses = dict(zip(step.weights, total, strict=True))
            self._check(step, own, losses, norm)
            self.interval.add(losses, step.weights, norm)
            means = {term: loss / step.weights[term] if step.weights[term] else 0.0 for term, loss in losses.items()}
            self._loss = total_loss(means, self.objective.coefficients)
            if remark := self.objective.remark(step.step, means):
                self._say(remark)

    def _check(self, step: StepDone, sums: Tensor, losses: Mapping[str, float], norm: float) -> None:
        """Stop with a sentence that names the step and the samples of the micro-batches at fault, on all ranks."""
        bad = [term for term, loss in losses.items() if not math.isfinite(loss)]
        if bad:
            what, at_fault = f"the loss {bad[0]!r} is {losses[bad[0]]}", (~sums.isfinite().all(1)).tolist()
        elif not math.isfinite(norm):
            what, at_fault = f"the gradient's norm is {norm}", [True] * len(sums)
        else:
            return
        mine = [index for indices, bad in zip(step.samples, at_fault, strict=True) if bad for index in indices]
        samples = sorted(self.share.gather(torch.tensor(mine, dtype=torch.int64)).tolist())
        epoch = step.step // self.steps_per_epoch
        raise ValueError(
            f"training stopped at step {step.step} (epoch {epoch}): {what} for the training samples "
            f"{', '.join(map(str, samples))}; look at these samples, or lower the learning rate"
        )

    def _write_row(self) -> None:
        step = self.cursor.step
        row = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            **self.interval.row(self.objective.coefficients),
            "learning_rates": self.optimiser.rates(step - 1),
        }
        if self.share.leads:
            self.history.append("training", row)
            self.tracker.training(row)

    # -- evaluation --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def released_weights(self) -> Iterator[None]:
        """Let the model have the weights that are evaluated and released, in evaluation mode."""
        self.model.eval()
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            yield
        self.model.train()

    def evaluate(self) -> None:
        """Evaluate, keep the weights if they are the best so far, and decide whether to end early."""
        cursor, epoch = self.cursor, self.cursor.step // self.steps_per_epoch
        seed_everything(self.config.seed, EVALUATION, cursor.step, self.share.rank)
        with self.released_weights(), torch.no_grad(), self._autocast():
            metrics = self.share.lead_metrics(self.objective.evaluate(self.model, self.share))
            self._keep_best(metrics, epoch)
            previews, watched = self._looked_at() if self.share.leads else ({}, {})
        self._say(f"epoch {epoch}/{self.config.epochs}: {self._in_short(metrics)}")
        self._maybe_stop(metrics)
        if cursor.stopped and self.interval.sums:
            self._write_row()
        shown = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        row = {"step": cursor.step, "epoch": epoch, **shown}
        if self.share.leads:
            self.history.append("evaluation", row)
            self.tracker.evaluation({**row, **watched}, previews)
            self._show_pictures(previews)

    def _looked_at(self) -> tuple[Mapping[str, bytes], Mapping[str, float]]:
        """Return pictures and figures for those who watch."""
        of = self.objective, self.model, self._say
        return live().previews(*of), live().watched(*of)

    def _show_pictures(self, previews: Mapping[str, bytes]) -> None:
        """Show previews, and the curves now and then."""
        pictures = dict(previews)
        ends = self.cursor.stopped or self.cursor.step == self.steps
        if ends or time.monotonic() - self._drawn_at > CURVES_AFTER:
            pictures |= live().curves(self.history, self._say)
            self._drawn_at = time.monotonic()
        for name, png in pictures.items():
            self._show(name, png)

    def _in_short(self, metrics: Mapping[str, float]) -> str:
        """Return the metrics that the training is steered by, and losses; the first few where there are neither."""
        config, best = self.config, self.cursor.best
        goals = [goal.metric for goal in (config.best, config.early_stop) if goal is not None]
        losses = [name for name in metrics if "loss" in name]
        shown = [name for name in dict.fromkeys([*goals, *losses] or metrics) if name in metrics]
        is_new = config.best is not None and best is not None and best["step"] == self.cursor.step
        marks = {config.best.metric: " (best)"} if config.best is not None and is_new else {}
        return ", ".join(f"{name} {metrics[name]:.4g}{marks.get(name, '')}" for name in shown[:SHOWN])

    def _keep_best(self, metrics: Mapping[str, float], epoch: int) -> None:
        goal, cursor = self.config.best, self.cursor
        if goal is None:
            return
        value = value_of(metrics, goal.metric)
        if is_better(value, cursor.best["value"] if cursor.best else None, goal.mode):
            cursor.best = {"value": value, "step": cursor.step, "epoch": epoch}
            if self.share.leads:
                write_weights(self.best_path(cursor.step), self.model, self.objective.stored)

    def best_path(self, step: int) -> Path:
        """Return where the weights of a best evaluation are kept."""
        return self.scratch / "best" / f"step-{step:08d}.safetensors"

    def _maybe_stop(self, metrics: Mapping[str, float]) -> None:
        stop, cursor = self.config.early_stop, self.cursor
        if stop is None:
            return
        value = value_of(metrics, stop.metric)
        if is_better(value, cursor.peak, stop.mode):
            cursor.peak, cursor.waited = value, 0
            return
        cursor.waited += 1
        if cursor.waited >= stop.patience and cursor.step < self.steps:
            cursor.stopped = True
            self._say(f"{stop.metric} has not become better for {cursor.waited} evaluations; the training ends early")

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _checkpoint_due(self) -> bool:
        every, minutes = self._execution.checkpoint_steps, self._execution.checkpoint_minutes
        if every and (self.cursor.step + 1) % every == 0:
            return True
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def save(self) -> None:
        """Write a checkpoint of everything, on all ranks together."""
        self.look()
        facts = {
            "cursor": asdict(self.cursor),
            "interval": self.interval.sums,
            "history": self.history.sync(),
            "ranks": self.share.world_size,
            "machines": self.machines,
        }
        self._checkpoints.save(self.cursor.step, self._tensors() | self._own_state(), facts)
        if self.share.leads:
            needed = {c.facts["cursor"]["best"]["step"] for c in self._checkpoints.kept() if c.facts["cursor"]["best"]}
            for path in (self.scratch / "best").glob("step-*"):
                if path not in {self.best_path(step) for step in needed}:
                    path.unlink()
        self._saved_at = time.monotonic()

    def _tensors(self) -> dict[str, Tensor]:
        """Return what is equal on all ranks; writing into the tensors changes the training's state."""
        state = self.model.state_dict()
        tensors = {f"model.{name}": t for name, t in state.items() if self.objective.stored(name)}
        tensors |= {f"optimiser.{name}": t for name, t in self.optimiser.tensors().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": t for name, t in self.average.tensors().items()}
        return tensors

    def _own_state(self) -> dict[str, Tensor]:
        return {f"objective.{self.share.rank}.{name}": t for name, t in self.objective.state_dict().items()}

    def resume(self) -> None:
        """Go back to the newest whole checkpoint; without one, to the beginning."""
        if self.share.leads:
            self._checkpoints.remove_half_written()
        found, passed_over = self._checkpoints.latest() if self.share.leads else (None, [])
        for sentence in passed_over:
            self._say(sentence)
        step = int(self.share.lead([-1.0 if found is None else float(found.step)])[0])
        if step < 0:
            self._cut_history(0)
            return
        checkpoint = self._checkpoints.at(step)
        self._load(checkpoint)
        facts = checkpoint.facts
        self.cursor = Cursor(**facts["cursor"])
        self.interval = Interval(facts["interval"])
        self.machines = [*facts["machines"], *(m for m in self.machines if m != facts["machines"][-1])]
        self._cut_history(facts["history"])
        self._say(f"continues after step {step} of {self.steps}")

    def _cut_history(self, size: int) -> None:
        if self.share.leads:
            self.history.cut(size)

    def _load(self, checkpoint: Checkpoint) -> None:
        own = self._checkpoints.empty(checkpoint, f"objective.{self.share.rank}.")
        if checkpoint.facts["ranks"] != self.share.world_size and self._checkpoints.empty(checkpoint, "objective."):
            raise ValueError(
                f"the checkpoint at step {checkpoint.step} holds the state of {checkpoint.facts['ranks']} ranks, not "
                f"of {self.share.world_size}; set execution.ranks to {checkpoint.facts['ranks']} to continue it"
            )
        self._checkpoints.load(checkpoint, self._tensors() | own)
        prefix = f"objective.{self.share.rank}."
        self.objective.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in own.items()})


def value_of(metrics: Mapping[str, float], metric: str) -> float:
    """Return a metric of an evaluation; `ValueError` where there is none of that name."""
    if metric not in metrics:
        raise ValueError(f"the evaluation reports no metric {metric!r}; it reports {', '.join(sorted(metrics))}")
    return metrics[metric]


def live() -> Any:
    """Return the module that draws a training under way, imported by its name: it is in no key."""
    return import_module("tasks.training.live")


def is_better(value: float, than: float | None, mode: str) -> bool:
    """Whether a metric is strictly better than the best so far; NaN and infinity never are."""
    if not math.isfinite(value):
        return False
    return than is None or (value > than if mode == "max" else value < than)


def seed_everything(seed: int, *parts: int) -> int:
    """Seed the global generators by a key and return it: what is drawn next depends on nothing that happened before."""
    key = seed
    for part in parts:
        key = sample_seed(key, part, 0)
    torch.manual_seed(key)
    np.random.seed(key % 2**32)
    random.seed(key)
    return key


def average_normalisation(model: nn.Module, share: Share) -> None:
    """Average the running statistics of batch normalisation over ranks, each of which saw other samples."""
    if share.world_size == 1:
        return
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]
    buffers = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
    if buffers:
        flat = share.sum(torch.cat([b.flatten() for b in buffers])).div_(share.world_size)
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

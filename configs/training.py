"""Configuration of every training run: what shapes the result, and apart from it how the run is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from configs.base import Added, Config

Rate = Annotated[float, Field(gt=0)]


class Goal(Config):
    """A metric of the objective's evaluation, and which way is better."""

    metric: str
    """Name as the evaluation reports it, without a prefix."""
    mode: Literal["max", "min"]
    """Whether larger or smaller is better."""

    @model_validator(mode="before")
    @classmethod
    def _says_which_way(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "metric" in values and "mode" not in values:
            raise ValueError(
                f"does not say which way {values['metric']} gets better; write `mode: max` beside it where larger is "
                "better, or `mode: min` where smaller is, as of a loss"
            )
        return values


class EarlyStop(Goal):
    """End the training when a metric has not become better for a while."""

    patience: int = Field(ge=1)
    """Evaluations without a new best value after which the training ends."""


class TrainingConfig(Config):
    """Everything that shapes the trained weights besides the objective and its data."""

    seed: int = Field(0, ge=0)
    """Key of all random numbers: initial weights, order of the data, dropout."""
    epochs: int = Field(ge=1)
    """Epochs to train."""
    steps_per_epoch: int | None = Field(None, ge=1)
    """Optimiser steps that count as one epoch; empty: one pass over the training data. The data goes on pass after
    pass either way."""
    batch_size: int = Field(ge=1)
    """Samples of one optimiser step, over all ranks and micro-batches."""
    accumulation: int = Field(1, ge=1)
    """Micro-batches of every rank in one optimiser step. Losses add up over them, but what compares samples with each
    other, as contrastive losses do, sees one micro-batch of all ranks at a time, so that with more it has fewer to
    compare."""
    learning_rates: dict[str, Rate] = Field(min_length=1)
    """Peak learning rate of every parameter group of the objective."""
    matrices: Annotated[Literal["adamw", "muon"], Added(before="adamw")] = "adamw"
    """What moves the matrices of linear layers within the model: `adamw`, as all else, or `muon` (arXiv 2502.16982),
    whose steps move a matrix along all its directions alike, and are as large as AdamW's at the same learning rate.
    Embeddings, heads, convolutions, biases and norms stay with AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """For weights with two dimensions and more, never for biases and norms."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Decay of AdamW's first and second moment."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which a group's learning rate rises from zero, counted from the step at which the group thaws."""
    final_lr_share: float = Field(0.0, ge=0, le=1)
    """Share of the peak learning rate at the end of the cosine."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest global gradient norm; empty: no clipping."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: autocast; master weights, gradients and optimiser stay in fp32."""
    ema_decay: float | None = Field(None, ge=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is then what is evaluated and released;
    empty: the weights themselves are."""
    freeze: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Epochs for which a parameter group stays frozen; its learning rate schedule starts when it thaws. `epochs` or
    more keeps it frozen to the end."""
    evaluate_every: int = Field(1, ge=1)
    """Epochs between evaluations; the last epoch always ends with one."""
    history_every: int = Field(10, ge=1)
    """Steps over which a row of the training history is averaged."""
    best: Goal | None = None
    """Release the weights of the best evaluation; empty: the last weights."""
    early_stop: EarlyStop | None = None
    """End early when a metric stands still; empty: train all epochs."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of accumulation ({self.accumulation})")
        if unknown := self.freeze.keys() - self.learning_rates.keys():
            raise ValueError(f"freeze names {', '.join(sorted(unknown))}, which learning_rates does not have")
        if all(self.freeze.get(group, 0) for group in self.learning_rates):
            raise ValueError("freeze leaves no parameter group to train in epoch 0")
        return self


def check_groups(training: TrainingConfig, *groups: str) -> None:
    """Refuse learning rates of other parameter groups than a model has."""
    if training.learning_rates.keys() != set(groups):
        raise ValueError(
            f"training.learning_rates names {', '.join(sorted(training.learning_rates))}, but the parameter groups are "
            f"{', '.join(sorted(groups))}; name each of them once"
        )


class WandbConfig(Config):
    """Logging to Weights & Biases."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    """`offline` writes a run folder that `wandb sync` uploads; `online` needs an account."""
    project: str = "millrace"
    """Project of the run."""
    entity: str | None = None
    """User or team; empty: the account's default."""
    name: str | None = None
    """Name of the run; empty: the stage and the start of its key. `{stage}` stands for what is trained, `{counter}` for
    the number of the training in its root, `{time}` for when it began: `run_{counter}_{stage}_{time}`."""
    tags: tuple[str, ...] = ()
    """Tags of the run."""
    group: str | None = None
    """Group of runs that belong together, for example seeds."""
    watch: bool = False
    """Log histograms of the gradients."""

    @model_validator(mode="after")
    def _name(self) -> Self:
        try:
            (self.name or "").format(stage="", counter=1, time="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"name {self.name!r} may hold {{stage}}, {{counter}} and {{time}}, and no other brace"
            ) from error
        return self


class Execution(Config):
    """How a training is carried out. Nothing here enters a stage's key.

    Results agree bit for bit between runs with equal `device`, `ranks`, `threads` and `compile` on like processors.
    Another device, number of threads or `compile` changes them by rounding. Another number of ranks changes more than
    that wherever a model draws random numbers: batches hold the same samples, but every rank draws its own dropout. An
    asset records what it was made on.
    """

    IN_KEY: ClassVar[bool] = False

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes GPUs where there are any."""
    ranks: int = Field(1, ge=1)
    """Processes that train together, on one machine; with GPUs one for each."""
    loader_workers: int = Field(0, ge=0)
    """Processes per rank that read samples; 0 reads them in the training process."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of a rank; empty: the cores divided by the ranks, so that the bits depend on the machine."""
    compile: bool = False
    """Let `torch.compile` make kernels of the model; the first steps then take minutes. Meant for GPUs."""
    checkpoint_minutes: float | None = Field(10.0, gt=0)
    """Minutes between checkpoints; each evaluation is followed by one anyway."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """Steps between checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints that are kept while the training runs."""
    wandb: WandbConfig = WandbConfig()
    """Weights & Biases."""

"""One step of the toy on every rank; rank 0 writes the gradients. Run by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

from configs.training import Execution, TrainingConfig
from tasks.training.loop import Trainer
from tasks.training.share import Share
from tests.training.toy import Toy


def first_step(path: Path, share: Share, accumulation: int) -> None:
    """Do the first step and write every gradient, the loss and the gradient norm."""
    c = TrainingConfig(
        epochs=1,
        batch_size=16,
        accumulation=accumulation,
        learning_rates={"body": 0.01, "head": 0.01},
        clip_norm=None,
        history_every=1,
    )
    scratch = path.with_suffix("")
    one = Trainer(Toy({"dropout": 0.0}), c, Execution(device="cpu"), share, scratch)
    one.step(next(one.batches(0, 1)))
    if share.leads:
        save_file({name: p.grad.clone() for name, p in one.model.named_parameters()}, path)


def main(path: str) -> None:
    share = Share.join(Execution(device="cpu", ranks=2))
    first_step(Path(path), share, accumulation=2)
    share.wait()
    share.leave()


if __name__ == "__main__":
    main(sys.argv[1])

"""Two stages in threads that import transformers, one just while the other one does."""

from __future__ import annotations

import sys
from pathlib import Path

from storage.assets import AssetStore
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import Job, StageResult, side_by_side, stage


@stage("first")
def first(job: Job) -> StageResult:
    """Import it."""
    from transformers import PreTrainedTokenizerFast  # noqa: F401

    return StageResult()


@stage("second")
def second(job: Job) -> StageResult:
    """Import it as soon as the other one has begun to."""
    while "transformers" not in sys.modules:
        pass
    from transformers import PreTrainedTokenizerFast  # noqa: F401

    return StageResult()


def race() -> None:
    """Run both in the root that the command names."""
    with Session(AssetStore(Path(sys.argv[1])), Silent()).active():
        side_by_side([first, second], 2)

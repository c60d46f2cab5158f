"""The predictors that stand beside every model: CopyLast, and dilations tuned on training fires."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs.fire_evaluation import EvaluationConfig
from storage.fire_split import Part
from tasks.fire.dilation import copy_last, fit_dilations
from tasks.fire.evaluation import Contender, batches_of_fires
from tasks.fire.rollout import Probability

if TYPE_CHECKING:
    from tasks.fire.dataset import FireDataset

COPY_LAST = "CopyLast"
DILATION = "burnable dilation"
WIND_DILATION = "wind-aware dilation"


def baseline_contenders(
    cache: Path, split: Path, samples: Callable[[Part], FireDataset], config: EvaluationConfig
) -> list[Contender]:
    """Return CopyLast, the burnable dilation and the wind-aware one; their threshold of 0.5 is part of the rule.

    Args:
        cache: folder of the token cache.
        split: folder of the split.
        samples: the samples of a part, whole crops, with all inputs.
        config: radii, winds and shifts among which dilations are tuned, and on how many training fires.
    """
    train = samples("train")
    fires = train.fires
    if config.tuning_fires is not None and config.tuning_fires < len(fires):
        places = np.linspace(0, len(fires) - 1, config.tuning_fires).round().astype(int)
        fires = [fires[place] for place in places]
    isotropic, aware = fit_dilations(
        batches_of_fires(train, fires, config.batch_size),
        train.spec,
        config.dilation_radii,
        config.dilation_radius_per_wind,
        config.dilation_shift_per_wind,
    )
    rules: dict[str, Probability] = {COPY_LAST: copy_last, DILATION: isotropic, WIND_DILATION: aware}
    return [Contender(name, predict, samples, threshold=0.5) for name, predict in rules.items()]

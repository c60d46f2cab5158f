"""Times predictions of single fires, from the token cache to a mask; arguments: cache, split, model, threads.

Each test fire is predicted once, from its longest history, so that none is decoded already; fires of the training
part warm up.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.fire.dataset import FireDataset, collate
from tasks.fire.released import FireRelease, open_part

WARM_UP = 3


def last_samples(samples: FireDataset) -> list[int]:
    """Return the last sample of each fire."""
    return list({fire: index for index, (fire, _) in enumerate(samples.samples)}.values())


def predict(model: FireRelease, samples: FireDataset, index: int) -> NDArray[np.bool_]:
    """Return the mask of the next frame, (H, W)."""
    batch = collate([samples.sample(index, seed=0)])
    probability = torch.sigmoid(model.network(batch).logits)
    return (probability[0] >= model.threshold).numpy()


def main(task: dict[str, Any]) -> None:
    """Predict all test fires and answer with milliseconds, predicted growth and sizes."""
    torch.set_num_threads(task["threads"])
    model = FireRelease.from_release(Path(task["model"]))
    places = Path(task["cache"]), Path(task["split"])
    training, test = (open_part(*places, part, model.recipe.inputs) for part in ("train", "test"))
    milliseconds, grown = [], []
    with torch.inference_mode():
        for index in last_samples(training)[:WARM_UP]:
            predict(model, training, index)
        test.sample(0, seed=0)  # arrays are read whole when first needed
        for index in last_samples(test)[1:]:
            begin = time.perf_counter()
            mask = predict(model, test, index)
            milliseconds.append(1e3 * (time.perf_counter() - begin))
            grown.append(int(mask.sum() - (test.sample(index, seed=0).age > 0).sum()))
    answer = {
        "milliseconds": [round(value, 2) for value in milliseconds],
        "grown_pixels": grown,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "shape": mask.shape,
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

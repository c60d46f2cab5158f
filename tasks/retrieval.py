"""Images found by texts, and texts by images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ranks(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank, from 0, of each image's own text among all texts, and of each text's own image.

    `scores` (N, N) are of images with texts; text i belongs to image i. What scores as high as the right one counts as
    before it, so that equal vectors win nothing.
    """
    own = scores.diagonal()
    return (scores >= own[:, None]).sum(1) - 1, (scores >= own[None]).sum(0) - 1


def recall_at(scores: Tensor, depths: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Return the share of images whose own text is among the first, and of texts likewise, and chance at 1."""
    to_text, to_image = ranks(scores)
    found = {}
    for depth in depths:
        found[f"text_at_{depth}"] = float((to_text < depth).double().mean())
        found[f"image_at_{depth}"] = float((to_image < depth).double().mean())
    return {**found, "chance_at_1": 1 / max(len(scores), 1)}


def mean_average_precision(scores: Tensor, same: Tensor) -> dict[str, float]:
    """Return the mean average precision of texts found by images, and back.

    `scores` (N, N) are of images with texts; `same` (N,) numbers texts: all equal ones belong to an image. Of equally
    good ones the wrong come first.
    """
    relevant = same[:, None] == same[None]
    return {"text_map": _average_precision(scores, relevant), "image_map": _average_precision(scores.t(), relevant)}


def _average_precision(scores: Tensor, relevant: Tensor) -> float:
    wrong_first = relevant.sort(dim=1, stable=True)
    order = scores.gather(1, wrong_first.indices).sort(dim=1, descending=True, stable=True).indices
    found = wrong_first.values.gather(1, order).double()
    places = torch.arange(1, found.shape[1] + 1, device=found.device)
    precision = found.cumsum(1) / places
    return float(((precision * found).sum(1) / found.sum(1)).mean())

"""Losses of the fire models: sums and denominators per term, so that any split of a batch adds up exactly.

A loss is the sum over its terms of coefficient * sum / weight. Sums and weights are sums over samples: those of a batch
are those of its parts added up, whatever the parts are (accumulation steps, ranks), and no sample changes what another
one adds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from configs.fire_models import FireModel, LossConfig
from models.fire.batch import FireBatch
from models.fire.output import FireOutput


class FireLoss:
    """Terms by `LossConfig.kind`: `bce`; `bce` and `dice`; `focal` and `tversky`. With an edge head also `edge`."""

    def __init__(self, config: LossConfig, model: FireModel) -> None:
        self.config = config
        pixel, region = {"bce": ("bce", ""), "bce_dice": ("bce", "dice"), "focal_tversky": ("focal", "tversky")}[
            config.kind
        ]
        terms = {pixel: 1.0, region: config.region_weight, **model.auxiliary_weights()}
        self.coefficients = {name: value for name, value in terms.items() if name and value > 0}

    def weights(self, batch: FireBatch) -> dict[str, float]:
        """Return the denominator of each term, without the model: pixels, or samples that have any."""
        counted = self.counted(batch).flatten(1).sum(1)
        pixels, samples = float(counted.sum()), float((counted > 0).sum())
        known = {"bce": pixels, "focal": pixels, "dice": samples, "tversky": samples}
        known["edge"] = float(batch.counted.sum())
        return {name: known[name] for name in self.coefficients}

    def sums(self, output: FireOutput, batch: FireBatch) -> dict[str, Tensor]:
        """Return the numerator of each term, differentiable, as float32 scalars."""
        counted = self.counted(batch)
        logits, target = output.logits.float(), batch.target.float()
        sums: dict[str, Tensor] = {}
        for name in self.coefficients:
            if name == "bce":
                sums[name] = self._cross_entropy(logits, target, counted)
            elif name == "focal":
                sums[name] = self._focal(logits, target, counted)
            elif name == "edge":
                sums[name] = self._edge(output.auxiliary["edge"], batch)
            else:
                sums[name] = self._region(logits, target, counted)
        return sums

    def loss(self, output: FireOutput, batch: FireBatch) -> Tensor:
        """Return the loss of one batch; 0 where nothing is counted."""
        weights = self.weights(batch)
        terms = [self.coefficients[n] * s / max(weights[n], 1.0) for n, s in self.sums(output, batch).items()]
        return torch.stack(terms).sum()

    def counted(self, batch: FireBatch) -> Tensor:
        """Return (B, H, W) bool: the pixels that all terms but `edge` count."""
        return batch.counted & ~batch.burnt if self.config.focus == "growth" else batch.counted

    def _cross_entropy(self, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        weight = self._positive_weight(target, counted).view(-1, 1, 1)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight)
        return loss.masked_fill(~counted, 0.0).sum()

    def _positive_weight(self, target: Tensor, counted: Tensor) -> Tensor:
        if self.config.pos_weight != "auto":
            return target.new_full((len(target),), self.config.pos_weight)
        positives = target.masked_fill(~counted, 0.0).flatten(1).sum(1)
        negatives = counted.flatten(1).sum(1) - positives
        ratio = negatives / positives.clamp(min=1)
        return torch.where(positives > 0, ratio, 1.0).clamp(max=self.config.max_pos_weight)

    def _focal(self, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        weight = self._positive_weight(target, counted).view(-1, 1, 1)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight)
        missed = (torch.sigmoid(logits) - target).abs()
        return (missed**self.config.focal_gamma * loss).masked_fill(~counted, 0.0).sum()

    def _region(self, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Return the sum over samples of 1 - Tversky index; Dice is the index with both weights 1/2."""
        dice = self.config.kind == "bce_dice"
        alpha, beta = (0.5, 0.5) if dice else (self.config.tversky_alpha, self.config.tversky_beta)
        probability = torch.sigmoid(logits).masked_fill(~counted, 0.0).flatten(1)
        truth = target.masked_fill(~counted, 0.0).flatten(1)
        hit = (probability * truth).sum(1)
        false_alarm, miss = probability.sum(1) - hit, truth.sum(1) - hit
        index = (hit + 1) / (hit + alpha * false_alarm + beta * miss + 1)
        return (1 - index).masked_fill(~counted.flatten(1).any(1), 0.0).sum()

    @staticmethod
    def _edge(logits: Tensor, batch: FireBatch) -> Tensor:
        truth = perimeter(batch.target, batch.domain).float()
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return loss.masked_fill(~batch.counted, 0.0).sum()


def perimeter(burnt: Tensor, domain: Tensor) -> Tensor:
    """Return (B, H, W) bool: burnt pixels with an unburnt pixel of the domain among their eight neighbours."""
    unburnt = (domain & ~burnt).float().unsqueeze(1)
    return (F.max_pool2d(unburnt, 3, stride=1, padding=1).squeeze(1) > 0) & burnt & domain

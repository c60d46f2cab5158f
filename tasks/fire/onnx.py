"""EmberFormer computed by ONNX Runtime, all but its head."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.fire.batch import FireBatch
from models.fire.emberformer import EmberFormer
from models.fire.output import FireOutput
from tasks.quantise.onnx_run import OnnxRunner

VARIABLE = {
    "fire": (1, 2, 3), "time_valid": (1,), "wind": (1,), "wind_valid": (1,), "static": (1, 2), "token_valid": (1, 2),
    "age": (1, 2), "terrain": (2, 3), "terrain_valid": (2, 3), "classes": (2, 3), "domain": (1, 2),
}  # fmt: skip
"""Fields of a batch that features are made of, and their axes of time and space: fires differ in these."""
TOKEN_AXES = {"fire": 2, "static": 1, "token_valid": 1}
"""Fields with an axis of tokens, which is two in the file: of sizes that are products the exporter knows too little."""
HEADS = ("head.", "edge.")
"""Entries of the model's state that torch computes with: a convolution of one pixel, and the search of the front."""


class FeatureGraph(nn.Module):
    """What is written into the file: from the fields of a batch of one sample to the features of its pixels."""

    def __init__(self, network: EmberFormer) -> None:
        super().__init__()
        self._network = network

    def forward(
        self,
        fire: Tensor,
        time_valid: Tensor,
        wind: Tensor,
        wind_valid: Tensor,
        static: Tensor,
        token_valid: Tensor,
        age: Tensor,
        terrain: Tensor,
        terrain_valid: Tensor,
        classes: Tensor,
        domain: Tensor,
    ) -> Tensor:
        """Return (1, F, H, W)."""
        batch = FireBatch(
            fire=fire.flatten(2),
            time_valid=time_valid,
            wind=wind,
            wind_valid=wind_valid,
            static=static.flatten(1, 2),
            token_valid=token_valid.flatten(1),
            age=age,
            terrain=terrain,
            terrain_valid=terrain_valid,
            classes=classes,
            domain=domain,
            burnable=domain,
            target=domain,
            counted=domain,
            fire_index=domain,
            step=domain,
            grid=(fire.shape[2], fire.shape[3]),
        )
        return self._network.features(batch)


class OnnxEmberFormer(nn.Module):
    """An EmberFormer whose features come from a file, one sample at a time."""

    def __init__(self, network: EmberFormer, path: Path) -> None:
        super().__init__()
        self.head, self.edge = network.head, network.edge
        self._run = OnnxRunner(path)

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return logits (B, H, W); with an edge head also `auxiliary["edge"]`."""
        inputs = inputs_of(batch)
        rows = range(len(batch))
        features = torch.cat([self._run({name: x[k : k + 1] for name, x in inputs.items()})[0] for k in rows])
        auxiliary = {} if self.edge is None else {"edge": self.edge(features).squeeze(1).float()}
        return FireOutput(self.head(features, batch), auxiliary)


def inputs_of(batch: FireBatch) -> dict[str, Tensor]:
    """Return what the file reads of a batch."""
    read = {name: getattr(batch, name) for name in VARIABLE}
    return read | {name: read[name].unflatten(axis, batch.grid) for name, axis in TOKEN_AXES.items()}

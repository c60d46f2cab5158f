"""SatSwinMAE computed by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.weather.sat_swin_mae import SatSwinMAE
from tasks.quantise.onnx_run import OnnxRunner


class ReconstructionGraph(nn.Module):
    """What is written into the file: from a window and its mask to the whole window."""

    def __init__(self, network: SatSwinMAE) -> None:
        super().__init__()
        self._network = network

    def forward(self, data: Tensor, mask: Tensor, time: Tensor, latitude: Tensor, longitude: Tensor) -> Tensor:
        """Return (1, C, T, H, W)."""
        return self._network(data, mask, time=time, latitude=latitude, longitude=longitude)


class OnnxSatSwinMAE(nn.Module):
    """A SatSwinMAE whose reconstructions come from a file, one window at a time.

    Attributes:
        config, channels, window, units: as of the network that the file was made from.
    """

    def __init__(self, network: SatSwinMAE, path: Path) -> None:
        super().__init__()
        self.config, self.channels = network.config, network.channels
        self.window, self.units = network.window, network.units
        self._run = OnnxRunner(path)

    def forward(self, data: Tensor, mask: Tensor, *, time: Tensor, latitude: Tensor, longitude: Tensor) -> Tensor:
        """Rebuild windows (B, C, T, H, W); arguments as those of `SatSwinMAE`."""
        inputs = {"data": data, "mask": mask, "time": time, "latitude": latitude, "longitude": longitude}
        rows = range(len(data))
        return torch.cat([self._run({name: x[k : k + 1] for name, x in inputs.items()})[0] for k in rows])

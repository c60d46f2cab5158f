"""3D convolutions over the last frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.fire_models import Head, Tiny3DConfig
from models.fire.batch import FireBatch, FireSpec
from models.fire.masked_layers import Pointwise
from models.fire.output import FireOutput, ResidualHead
from models.fire.pixel_inputs import PixelInputs


class Tiny3D(nn.Module):
    """Two 3D convolutions (time, row, column) over the last five frames, which the ages of burning spell out."""

    FRAMES = 5

    def __init__(self, config: Tiny3DConfig, spec: FireSpec) -> None:
        super().__init__()
        width = config.width
        self.pixels = PixelInputs(spec)
        self.still = Pointwise(self.pixels.channels, width)
        self.first = nn.Conv3d(5, width, 3, padding=(0, 1, 1))
        self.second = nn.Conv3d(width, width, 3, padding=(0, 1, 1))
        self.head = ResidualHead(Head.RESIDUAL, width)

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return logits (B, H, W)."""
        domain = batch.domain[:, None]
        still = self.still(self.pixels(batch).maps)[:, :, None]
        x = F.relu(self.first(self._frames(batch)) + still) * domain[:, :, None]
        x = F.relu(self.second(x)).squeeze(2)
        return FireOutput(self.head(x, batch))

    def _frames(self, batch: FireBatch) -> Tensor:
        """Return (B, 5, FRAMES, H, W), the last frame last: fire; wind toward east and north, speed, validity."""
        frames = self.FRAMES
        ago = torch.arange(frames - 1, -1, -1, device=batch.age.device).view(1, frames, 1, 1)
        fire = (batch.age.unsqueeze(1) > ago).to(batch.terrain.dtype)
        known = F.pad(batch.wind_valid & batch.time_valid, (frames, 0))[:, -frames:, None]
        speed, sine, cosine = F.pad(batch.wind, (0, 0, frames, 0))[:, -frames:].masked_fill(~known, 0.0).unbind(-1)
        wind = torch.stack([-sine, -cosine, speed, known.squeeze(-1).to(speed.dtype)], 1)
        maps = torch.cat([fire.unsqueeze(1), wind[..., None, None].expand(*wind.shape, *fire.shape[-2:])], 1)
        return maps.masked_fill(~batch.domain[:, None, None], 0.0)

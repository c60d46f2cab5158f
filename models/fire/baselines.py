"""Baselines that learn: convolutions over the last frame or the last frames, and U-Nets on pixels or patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.fire_models import ConvHead2DConfig, CopyLastConfig, Tiny3DConfig, UNetSConfig, UNetSTokensConfig
from models.fire.batch import FireBatch, FireSpec
from models.fire.heads import build_head
from models.fire.masked_layers import ConvLayer, ConvStage, DownPath, Pointwise, UpPath, mask_pyramid
from models.fire.output import FireOutput, monotone
from models.fire.pixel_inputs import WIND_CHANNELS, PixelInputs, PixelStem, wind_vectors


class CopyLast(nn.Module):
    """The next frame is the last one. It has no parameters."""

    def __init__(self, config: CopyLastConfig, spec: FireSpec) -> None:
        super().__init__()

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return +-`BURNT_LOGIT`."""
        return FireOutput(monotone(torch.full_like(batch.burnt, -10.0, dtype=torch.float32), batch))


class UNetS(nn.Module):
    """A plain U-Net (arXiv 1505.04597) at full resolution: ages, terrain, classes, wind; 0.8 M parameters."""

    def __init__(self, config: UNetSConfig, spec: FireSpec) -> None:
        super().__init__()
        widths = config.widths
        self.pixels = PixelInputs(spec)
        self.stem = PixelStem(self.pixels, widths[0], stride=1)
        self.down = DownPath(widths, config.depth)
        self.up = UpPath(widths, widths[:-1], config.depth)
        self.head = build_head(config.head, widths[0])

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return logits (B, H, W)."""
        x, mask = self.stem(self.pixels(batch))
        masks = mask_pyramid(mask, len(self.down.stages))
        return FireOutput(self.head(self.up(self.down(x, masks), masks), batch))


class UNetSTokens(nn.Module):
    """A U-Net on the patch grid; its logits are repeated over the pixels of their patch."""

    def __init__(self, config: UNetSTokensConfig, spec: FireSpec) -> None:
        super().__init__()
        widths = config.widths
        self.patch = spec.patch
        self.wind_scale = spec.wind_scale
        self.stem = ConvLayer(2 + spec.static + WIND_CHANNELS, widths[0])
        self.down = DownPath(widths, config.depth)
        self.up = UpPath(widths, widths[:-1], config.depth)
        self.head = Pointwise(widths[0], 1)

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return logits (B, H, W), constant over the open pixels of a patch."""
        valid = batch.token_valid.unflatten(1, batch.grid).unsqueeze(1)
        x = self._inputs(batch).masked_fill(~valid, 0.0)
        masks = mask_pyramid(valid.to(x.dtype), len(self.down.stages))
        x = self.up(self.down(self.stem(x, masks[0]), masks), masks)
        logits = F.interpolate(self.head(x), scale_factor=self.patch, mode="nearest").squeeze(1)
        return FireOutput(monotone(logits, batch))

    def _inputs(self, batch: FireBatch) -> Tensor:
        """Return (B, C, Gy, Gx): last two frames, static terrain and wind."""
        frames = F.pad(batch.fire.masked_fill(~batch.time_valid.unsqueeze(-1), 0.0), (0, 0, 1, 0))[:, -2:]
        wind = wind_vectors(batch, self.wind_scale).unsqueeze(-1).expand(-1, -1, batch.fire.shape[-1])
        return torch.cat([frames, batch.static.transpose(1, 2), wind], 1).unflatten(2, batch.grid)


class ConvHead2D(nn.Module):
    """Three 3x3 convolutions over the last frame, the terrain and the wind."""

    def __init__(self, config: ConvHead2DConfig, spec: FireSpec) -> None:
        super().__init__()
        self.pixels = PixelInputs(spec)
        self.body = ConvStage(self.pixels.channels + WIND_CHANNELS, config.width, depth=3)
        self.head = build_head("residual", config.width)

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return logits (B, H, W)."""
        stack = self.pixels(batch)
        mask = stack.domain[:, None].to(stack.maps.dtype)
        return FireOutput(self.head(self.body(stack.broadcast(), mask), batch))


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
        self.head = build_head("residual", width)

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

"""A U-Net on pixels."""

from __future__ import annotations

from torch import nn

from configs.fire_models import UNetSConfig
from models.build import build
from models.fire.batch import FireBatch, FireSpec
from models.fire.masked_layers import DownPath, UpPath, mask_pyramid
from models.fire.output import FireOutput
from models.fire.pixel_inputs import PixelInputs, PixelStem


class UNetS(nn.Module):
    """A plain U-Net (arXiv 1505.04597) at full resolution: ages, terrain, classes, wind; 0.8 M parameters."""

    def __init__(self, config: UNetSConfig, spec: FireSpec) -> None:
        super().__init__()
        widths = config.widths
        self.pixels = PixelInputs(spec)
        self.stem = PixelStem(self.pixels, widths[0], stride=1)
        self.down = DownPath(widths, config.depth)
        self.up = UpPath(widths, widths[:-1], config.depth)
        self.head: nn.Module = build(config.head, widths[0])

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return logits (B, H, W)."""
        x, mask = self.stem(self.pixels(batch))
        masks = mask_pyramid(mask, len(self.down.stages))
        return FireOutput(self.head(self.up(self.down(x, masks), masks), batch))

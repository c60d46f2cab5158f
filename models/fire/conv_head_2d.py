"""2D convolutions over the last frame."""

from __future__ import annotations

from torch import nn

from configs.fire_models import ConvHead2DConfig, Head
from models.fire.batch import FireBatch, FireSpec
from models.fire.masked_layers import ConvStage
from models.fire.output import FireOutput, ResidualHead
from models.fire.pixel_inputs import WIND_CHANNELS, PixelInputs


class ConvHead2D(nn.Module):
    """Three 3x3 convolutions over the last frame, the terrain and the wind."""

    def __init__(self, config: ConvHead2DConfig, spec: FireSpec) -> None:
        super().__init__()
        self.pixels = PixelInputs(spec)
        self.body = ConvStage(self.pixels.channels + WIND_CHANNELS, config.width, depth=3)
        self.head = ResidualHead(Head.RESIDUAL, config.width)

    def forward(self, batch: FireBatch) -> FireOutput:
        """Return logits (B, H, W)."""
        stack = self.pixels(batch)
        mask = stack.domain[:, None].to(stack.maps.dtype)
        return FireOutput(self.head(self.body(stack.broadcast(), mask), batch))

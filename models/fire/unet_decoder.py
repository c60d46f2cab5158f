"""A pixel U-Net that tokens join."""

from __future__ import annotations

from torch import Tensor

from configs.fire_models import UnetDecoderConfig
from models.fire.masked_layers import DownPath, UpPath, mask_pyramid, place_tokens
from models.fire.pixel_decoder import PixelDecoder
from models.fire.pixel_inputs import PixelInputs, PixelReadout, PixelStack, PixelStem

STEM = 2
"""Stride at which the U-Net works: 2x2 pixels become channels and back, which loses nothing."""


class UnetDecoder(PixelDecoder):
    """A pixel U-Net (arXiv 1505.04597) at half resolution; the tokens join the stage whose stride is the patch."""

    def __init__(self, config: UnetDecoderConfig, patch: int, d_model: int, pixels: PixelInputs) -> None:
        super().__init__()
        widths = config.widths
        self.stem = PixelStem(pixels, widths[0], STEM)
        self.down = DownPath(widths, config.depth, place_tokens(d_model, patch, STEM, len(widths)))
        self.up = UpPath(widths, widths[:-1], max(config.depth - 1, 1))
        self.readout = PixelReadout(widths[0], STEM, config.features, pixels)

    def forward(self, stack: PixelStack, tokens: Tensor) -> Tensor:
        """Return (B, features, H, W)."""
        x, mask = self.stem(stack)
        masks = mask_pyramid(mask, len(self.down.stages))
        return self.readout(self.up(self.down(x, masks, tokens), masks), stack)

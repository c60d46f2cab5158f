"""What spatial decoders are: from tokens (B, d, Gy, Gx) and pixel inputs to pixel features (B, F, H, W)."""

from __future__ import annotations

from torch import nn


class PixelDecoder(nn.Module):
    """What all decoders are: forward(PixelStack, tokens (B, d, Gy, Gx)) gives features (B, F, H, W)."""

    def pretrained_modules(self) -> list[nn.Module]:
        """Return the modules that came with pretrained weights; none by default."""
        return []

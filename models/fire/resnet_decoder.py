"""A ResNet as pixel encoder, and a U-Net decoder that tokens join."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from configs.fire_models import UnetResnetDecoderConfig
from models.fire.masked_layers import TokenJoin, UpPath, mask_pyramid, place_tokens, stem_mask
from models.fire.pixel_decoder import PixelDecoder
from models.fire.pixel_inputs import WIND_CHANNELS, PixelInputs, PixelReadout, PixelStack
from models.pretrained import freeze_statistics, load_pretrained

BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}
STAGES = 4


class UnetResnetDecoder(PixelDecoder):
    """U-Net over a ResNet (arXiv 1512.03385) at strides 2 to 32; tokens join the skip whose stride is the patch.

    The ResNet runs with masks: what each of its convolutions and shortcuts gives is set to zero outside the domain, and
    its batch norms keep the statistics they came with (see `FrozenBatchNorm`). Its pretrained stem is adapted to our
    channels: the weights of its three colours are averaged and spread over all channels, so that the sum of the inputs
    gives the same response. At random start the last norm of every block is scaled down, because without batch
    statistics the sum of so many blocks would grow.
    """

    def __init__(self, config: UnetResnetDecoderConfig, patch: int, d_model: int, pixels: PixelInputs) -> None:
        super().__init__()
        channels = pixels.channels + WIND_CHANNELS
        resnet: Any = (_pretrained_resnet if config.pretrained else _random_resnet)(config, channels)
        freeze_statistics(resnet)
        sizes = resnet.config
        self.from_pretrained = config.pretrained is not None
        self.stem, self.pooler, self.encoder = resnet.embedder.embedder, resnet.embedder.pooler, resnet.encoder
        skips = (sizes.embedding_size, *sizes.hidden_sizes)
        place = place_tokens(d_model, patch, 2, len(skips))
        self.join_level = place.level
        self.join = TokenJoin(place, skips[place.level])
        self.up = UpPath(skips, config.widths, depth=1)
        self.readout = PixelReadout(config.widths[0], 2, config.features, pixels)

    def pretrained_modules(self) -> list[nn.Module]:
        """Return what came with pretrained weights and fits our inputs: all but the stem's convolution."""
        return [self.stem.normalization, self.encoder] if self.from_pretrained else []

    def forward(self, stack: PixelStack, tokens: Tensor) -> Tensor:
        """Return (B, features, H, W)."""
        pixels = stack.broadcast().contiguous(memory_format=torch.channels_last)
        masks = mask_pyramid(stem_mask(stack.domain, 2, pixels.dtype), STAGES + 1)
        maps = [self.stem(pixels) * masks[0]]
        x = self.pooler(maps[0]) * masks[1]
        for level, stage in enumerate(self.encoder.stages):
            for block in cast(Any, stage).layers:
                x = _masked_block(block, x, masks[max(level, 1) :])
            maps.append(x)
        maps[self.join_level] = self.join(maps[self.join_level], tokens)
        return self.readout(self.up(maps, masks), stack)


def _masked_block(block: Any, x: Tensor, masks: list[Tensor]) -> Tensor:
    """Run a residual block of transformers' ResNet; `masks` holds those of its input and of its output."""
    by_size = {mask.shape[-2:]: mask for mask in masks[:2]}
    y = x
    for layer in block.layer:
        y = layer(y)
        y = y * by_size[y.shape[-2:]]
    shortcut = block.shortcut(x)
    return block.activation(y + shortcut * by_size[shortcut.shape[-2:]])


def _pretrained_resnet(config: UnetResnetDecoderConfig, channels: int) -> ResNetModel:
    source = config.pretrained
    assert source
    resnet: Any = load_pretrained(ResNetModel, source, ("embedder", "encoder"))
    if len(resnet.config.hidden_sizes) != STAGES or resnet.config.downsample_in_first_stage:
        raise ValueError(f"pretrained {source} is no plain ResNet of {STAGES} stages; name a ResNet-18, 34 or 50")
    convolution = resnet.embedder.embedder.convolution
    colours = convolution.weight.shape[1]
    mean = convolution.weight.detach().mean(1, keepdim=True)
    convolution.weight = nn.Parameter((mean * colours / channels).repeat(1, channels, 1, 1))
    return resnet


def _random_resnet(config: UnetResnetDecoderConfig, channels: int) -> ResNetModel:
    depth = config.depth or 18
    bottleneck = depth == 50
    sizes = config.hidden_sizes or ((256, 512, 1024, 2048) if bottleneck else (64, 128, 256, 512))
    resnet: Any = ResNetModel(
        ResNetConfig(
            num_channels=channels,
            embedding_size=min(64, sizes[0]),
            hidden_sizes=list(sizes),
            depths=BLOCKS[depth],
            layer_type="bottleneck" if bottleneck else "basic",
        )
    )
    with torch.no_grad():
        for stage in resnet.encoder.stages:
            for block in stage.layers:
                block.layer[-1].normalization.weight.fill_(sum(BLOCKS[depth]) ** -0.5)
    return resnet

"""What a pixel model sees of a batch: fire, terrain, classes and wind at pixel resolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.fire.batch import FireBatch, FireSpec
from models.fire.masked_layers import stem_mask

AGES = 3
"""Ages that have a channel of their own; the last one also counts everything older."""
WIND_CHANNELS = 8
"""Channels of the wind of one sample: see `wind_vectors`."""
STRIP = 2**14
"""Pixels that are read out at a time where no gradient is kept, so that what lies between stays in the cache."""


@dataclass
class PixelStack:
    """The inputs of a pixel model; zero outside the domain."""

    maps: Tensor
    """(B, C, H, W) float, channels last, as convolutions want it."""
    wind: Tensor
    """(B, 8) float: the same for all pixels of a sample."""
    domain: Tensor
    """(B, H, W) bool."""

    def broadcast(self) -> Tensor:
        """Return (B, C + 8, H, W): maps, and the wind repeated over the domain."""
        wind = self.wind[:, :, None, None] * self.domain[:, None]
        return torch.cat([self.maps, wind.to(self.maps.dtype)], 1)


class PixelInputs(nn.Module):
    """Builds the stack: ages of burning, terrain with its validity, embedded classes, slope along and across the wind.

    Class 0 ("no value, or never seen in training") is embedded as zeros.
    """

    def __init__(self, spec: FireSpec, embedding: int = 8) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(
            nn.Embedding(max(classes, 2), embedding, padding_idx=0) for _, classes in spec.categorical
        )
        names = spec.continuous
        self.slopes = tuple(names.index(name) for name in ("slope_east", "slope_north") if name in names)
        interactions = 2 if len(self.slopes) == 2 else 0
        self.channels = 1 + AGES + 2 * len(names) + interactions + embedding * len(spec.categorical)
        self.wind_scale = spec.wind_scale

    def forward(self, batch: FireBatch) -> PixelStack:
        """Return maps (B, C, H, W), wind (B, 8) and the domain."""
        wind = wind_vectors(batch, self.wind_scale)
        parts = [fire_maps(batch), *self._terrain(batch, wind), *self._classes(batch)]
        maps = torch.cat([part.permute(0, 2, 3, 1) for part in parts], -1)
        return PixelStack(maps.permute(0, 3, 1, 2), wind, batch.domain)

    def _terrain(self, batch: FireBatch, wind: Tensor) -> list[Tensor]:
        valid = batch.terrain_valid & batch.domain[:, None]
        terrain = batch.terrain.masked_fill(~valid, 0.0)
        maps = [terrain, valid.to(terrain.dtype)]
        if len(self.slopes) == 2:
            east, north = (terrain[:, index : index + 1] for index in self.slopes)
            toward_east, toward_north = (wind[:, index, None, None, None] for index in (0, 1))
            maps.append(east * toward_east + north * toward_north)
            maps.append(east * toward_north - north * toward_east)
        return maps

    def _classes(self, batch: FireBatch) -> list[Tensor]:
        codes = batch.classes.masked_fill(~batch.domain[:, None], 0)
        return [embed(codes[:, band]).permute(0, 3, 1, 2) for band, embed in enumerate(self.embeddings)]


def fire_maps(batch: FireBatch) -> Tensor:
    """Return (B, 4, H, W): burnt; burnt first in the last frame, in the one before it, earlier."""
    age = batch.age.masked_fill(~batch.domain, 0)
    return torch.stack([age > 0, *(age == n for n in range(1, AGES)), age >= AGES], 1).to(batch.terrain.dtype)


def wind_vectors(batch: FireBatch, scale: tuple[float, float]) -> Tensor:
    """Return (B, 8): the wind of the step to be predicted, then that of the step before it.

    Of each: the vector that it blows TOWARD (east, north) in units of mean speed + standard deviation, the
    standardised speed, and 1 where it was measured; zeros where not.
    """
    mean, deviation = scale
    rows = F.pad(batch.wind, (0, 0, 1, 0))[:, -2:]
    known = F.pad(batch.wind_valid & batch.time_valid, (1, 0))[:, -2:, None]
    speed, sine, cosine = rows.masked_fill(~known, 0.0).unbind(-1)
    strength = (speed * deviation + mean).clamp(min=0) / max(abs(mean) + deviation, 1e-6)
    newest_first = torch.stack([-strength * sine, -strength * cosine, speed, known.squeeze(-1).to(speed.dtype)], -1)
    return newest_first.flip(1).flatten(1)


class PixelStem(nn.Module):
    """The first convolution of a pixel model, over blocks of stride x stride pixels; the wind is added to each."""

    def __init__(self, inputs: PixelInputs, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.maps = nn.Conv2d(inputs.channels, width, stride, stride)
        self.wind = nn.Linear(WIND_CHANNELS, width, bias=False)

    def forward(self, stack: PixelStack) -> tuple[Tensor, Tensor]:
        """Return (B, width, H / stride, W / stride), non-negative, and its (B, 1, ...) mask."""
        x = self.maps(stack.maps).add_(self.wind(stack.wind)[:, :, None, None])
        x = F.relu_(x).contiguous(memory_format=torch.channels_last)
        return x, stem_mask(stack.domain, self.stride, x.dtype)


class PixelReadout(nn.Module):
    """The last layers of a pixel model: a map at some stride joins the inputs again, at full resolution.

    The short way matters: fuel, slope and wind of a pixel decide most of how fast fire crosses it.
    """

    def __init__(self, inputs: int, stride: int, features: int, pixels: PixelInputs) -> None:
        """`inputs`: channels of the map."""
        super().__init__()
        self.stride = stride
        self.expand = nn.Conv2d(inputs, features * stride**2, 1)
        self.maps = nn.Conv2d(pixels.channels, features, 1, bias=False)
        self.wind = nn.Linear(WIND_CHANNELS, features, bias=False)
        self.mix = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, stack: PixelStack) -> Tensor:
        """Return (B, features, H, W), non-negative."""
        wind = self.wind(stack.wind)[:, :, None, None]
        if torch.is_grad_enabled():
            return self._read(x, stack.maps, wind)
        shape = len(wind), wind.shape[1], *stack.maps.shape[-2:]
        features = torch.empty(shape, dtype=wind.dtype, device=wind.device, memory_format=torch.channels_last)
        rows = max(STRIP // (self.stride * shape[-1]), 1)
        fine = rows * self.stride
        strips = zip(x.split(rows, 2), stack.maps.split(fine, 2), features.split(fine, 2), strict=True)
        for coarse, maps, strip in strips:
            strip.copy_(self._read(coarse, maps, wind))
        return features

    def _read(self, x: Tensor, maps: Tensor, wind: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.expand(x), self.stride).add_(self.maps(maps)).add_(wind)
        return F.relu_(self.mix(F.relu_(x)))

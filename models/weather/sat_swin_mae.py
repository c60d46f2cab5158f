"""A masked autoencoder over windows of weather fields, whose encoder gives the visual tokens of a language model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from configs.sat_swin_mae import SwinMaeConfig
from models.weather.swin3d import Grid, PatchEmbed3D, PatchMerging3D, SwinStage, as_grid, sincos_position

SECONDS_PER_DAY = 86_400
SECONDS_PER_YEAR = 31_556_952
"""Of the mean Gregorian year; the season is off by about a day at most, from 1900 to 2100."""


class PlaceAndTime(nn.Module):
    """Tells each patch where it lies, how high its sun stands and which season it is."""

    def __init__(self, width: int, patch: Grid) -> None:
        super().__init__()
        self.patch = patch
        self.projection = nn.Linear(8, width)

    def forward(self, time: Tensor, latitude: Tensor, longitude: Tensor) -> Tensor:
        """Return (B, 1, H', W', width).

        `time` (B,) counts seconds since 1970 in UTC at the window's anchor step; `latitude` (B, H) and `longitude`
        (B, W) are in degrees. Sines and cosines are averaged over a patch, so that the date line is no border.
        """
        _, rows, columns = self.patch
        latitude, longitude = latitude.float().deg2rad(), longitude.float().deg2rad()
        season = _phase(time, SECONDS_PER_YEAR)[:, None].expand_as(latitude)
        solar = _phase(time, SECONDS_PER_DAY)[:, None] + longitude
        by_row = torch.cat([_circle(latitude, rows), _circle(season, rows)], -1)
        by_column = torch.cat([_circle(longitude, columns), _circle(solar, columns)], -1)
        shape = (-1, by_row.shape[1], by_column.shape[1], -1)
        features = torch.cat([by_row[:, :, None].expand(shape), by_column[:, None].expand(shape)], -1)
        return self.projection(features)[:, None]


def _phase(time: Tensor, period: int) -> Tensor:
    return (time % period).float() * (2 * math.pi / period)


def _circle(angle: Tensor, patch: int) -> Tensor:
    """Return (B, N / patch, 2): mean sine and cosine of the angles (B, N) of each patch."""
    return torch.stack([angle.sin(), angle.cos()], -1).unflatten(1, (-1, patch)).mean(2)


class SatSwinMAE(nn.Module):
    """3D Swin encoder with a light decoder, pretrained by rebuilding hidden parts of its input.

    All tokens run through the encoder, the hidden ones as a learned mask token (SimMIM, arXiv 2111.09886). What is
    hidden as one is a cell of the encoder's last stage, and nothing but the tokens of that stage reaches the decoder:
    they have to hold all that the window shows.
    """

    position: Tensor

    def __init__(self, config: SwinMaeConfig, channels: int, window: Grid) -> None:
        super().__init__()
        _check_window(window, config.patch)
        self.config, self.channels, self.window = config, channels, window
        self.unit_tokens = as_grid(cell // patch for cell, patch in zip(config.cell, config.patch, strict=True))
        tokens = as_grid(size // patch for size, patch in zip(window, config.patch, strict=True))
        self.embed = PatchEmbed3D(channels, config.width, config.patch)
        self.mask_token = nn.Parameter(torch.zeros(config.width))
        self.register_buffer("position", sincos_position(tokens, config.width), persistent=False)
        self.context = PlaceAndTime(config.width, config.patch) if config.context == "place_and_time" else None
        self.stages, self.merges = _encoder(config)
        self.norm = nn.LayerNorm(self.token_width)
        self.decoder_embed = nn.Linear(self.token_width, config.decoder_width)
        self.decoder = SwinStage(
            config.decoder_width, config.decoder_heads, config.window, config.mlp_ratio, [0.0] * config.decoder_depth
        )
        self.decoder_norm = nn.LayerNorm(config.decoder_width)
        self.head = nn.Linear(config.decoder_width, channels * math.prod(config.cell))
        self.apply(_init_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    @property
    def units(self) -> Grid:
        """Grid of what is hidden as one; cells at the far ends may reach beyond the window."""
        return as_grid(-(-size // cell) for size, cell in zip(self.window, self.config.cell, strict=True))

    @property
    def token_grid(self) -> Grid:
        """Grid of the encoder's tokens, which is that of the mask units."""
        return self.units

    @property
    def token_width(self) -> int:
        """Channels of the encoder's tokens."""
        return self.config.widths[-1]

    def forward(
        self,
        data: Tensor,
        mask: Tensor,
        *,
        time: Tensor | None = None,
        latitude: Tensor | None = None,
        longitude: Tensor | None = None,
    ) -> Tensor:
        """Rebuild the whole window (B, C, T, H, W) from what `mask` (B, units) does not hide.

        `data` (B, C, T, H, W) is normalised, with 0 where a value is missing. The context is read if the configuration
        asks for it: `time` (B,) of the window's anchor step as int64 seconds since 1970 in UTC, `latitude` (B, H) and
        `longitude` (B, W) in degrees.
        """
        x = self.decoder_embed(self._encode(data, mask, time, latitude, longitude))
        return self._pixels(self.head(self.decoder_norm(self.decoder(x))))

    def encode_tokens(
        self,
        data: Tensor,
        *,
        time: Tensor | None = None,
        latitude: Tensor | None = None,
        longitude: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens (B, T' * H' * W', token_width) of the last stage; arguments as for `forward`."""
        return self._encode(data, None, time, latitude, longitude).flatten(1, 3)

    def _encode(
        self, data: Tensor, mask: Tensor | None, time: Tensor | None, latitude: Tensor | None, longitude: Tensor | None
    ) -> Tensor:
        """Return (B, T', H', W', token_width)."""
        if data.shape[1:] != (self.channels, *self.window):
            raise ValueError(
                f"data has the shape {tuple(data.shape)}; this model takes (batch, {self.channels}, "
                f"{', '.join(map(str, self.window))})"
            )
        x = self.embed(data)
        if mask is not None:
            hidden = _spread(mask, self.units, self.unit_tokens, as_grid(x.shape[1:4]))
            x = torch.where(hidden[..., None], self.mask_token.to(x.dtype), x)
        x = x + self.position
        if self.context is not None:
            if time is None or latitude is None or longitude is None:
                raise ValueError("the model's context is place_and_time: pass time, latitude and longitude")
            x = x + self.context(time, latitude, longitude)
        x = self.stages[0](x)
        for merge, stage in zip(self.merges, self.stages[1:], strict=True):
            x = stage(merge(x))
        return self.norm(x)

    def _pixels(self, cells: Tensor) -> Tensor:
        """Return (B, C, T, H, W) of the values (B, T', H', W', C * cell volume) of each cell."""
        x = cells.unflatten(-1, (self.channels, *self.config.cell)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        time, row, column = self.window
        return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)[:, :, :time, :row, :column]


def _check_window(window: Grid, patch: Grid) -> None:
    for name, size, step in zip(("time", "latitude", "longitude"), window, patch, strict=True):
        if size < step or size % step:
            raise ValueError(
                f"the window has {size} cells along {name}, which patches of {step} do not divide; "
                f"make it a multiple of {step} or change the model's patch"
            )


def _encoder(config: SwinMaeConfig) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return the stages, and the merges between them; the rate of dropped paths rises linearly over all blocks."""
    rates = torch.linspace(0, config.drop_path, sum(config.depths)).split(config.depths)
    stages = nn.ModuleList(
        SwinStage(width, heads, config.window, config.mlp_ratio, rate.tolist())
        for width, heads, rate in zip(config.widths, config.heads, rates, strict=True)
    )
    return stages, nn.ModuleList(PatchMerging3D(width, config.merge) for width in config.widths[:-1])


def _init_weights(module: nn.Module) -> None:
    """Xavier's uniform weights, as MAE has them (arXiv 2111.06377): deviations of 0.02 leave narrow models silent."""
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _spread(mask: Tensor, units: Grid, step: Grid, size: Grid) -> Tensor:
    """Return (B, *size) of a mask (B, units), each unit `step` long and the last ones cut off at `size`."""
    mask = mask.view(-1, *units)
    for axis, repeats in enumerate(step, 1):
        mask = mask.repeat_interleave(repeats, axis)
    return mask[:, : size[0], : size[1], : size[2]]


def draw_masks(batch: int, units: Grid, ratio: float, generator: torch.Generator) -> Tensor:
    """Return (batch, units), true where hidden: `ratio` of each sample's units, but at least one hidden, one visible.

    The masks lie on the generator's device.
    """
    count = math.prod(units)
    if count < 2:
        raise ValueError(f"the grid of mask units is {units}; make the window larger than one cell of the model")
    hidden = min(max(round(ratio * count), 1), count - 1)
    order = torch.rand(batch, count, generator=generator, device=generator.device).argsort(1)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :hidden], True)


def pixel_mask(mask: Tensor, units: Grid, cell: Grid, window: Grid) -> Tensor:
    """Return (B, 1, T, H, W), true for every step and pixel of a hidden unit of `mask` (B, units)."""
    return _spread(mask, units, cell, window)[:, None]


def value_weights(hidden: Tensor, valid: Tensor, latitude: Tensor | None = None) -> Tensor:
    """Return (B, C, T, H, W): how much each value counts in a reconstruction; 0 where it is not hidden or not valid.

    `hidden` is (B, 1, T, H, W) and `valid` (B, C, T, H, W). With `latitude` (B, H) in degrees every pixel weighs the
    cosine of its own, otherwise 1.
    """
    weights = (hidden & valid).float()
    if latitude is not None:
        weights = weights * latitude.float().deg2rad().cos().clamp(min=0)[:, None, None, :, None]
    return weights


def sum_by_channel(values: Tensor) -> Tensor:
    """Return (C,) of (B, C, T, H, W)."""
    return values.sum((0, 2, 3, 4))


def squared_errors(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of squared errors by channel (C,); all arguments are (B, C, T, H, W).

    The target may be anything where the weight is 0.
    """
    error = (prediction.float() - target.float()).masked_fill(weights == 0, 0.0)
    return sum_by_channel(error.square() * weights)

"""Random batches of fires for model tests, and the ways in which padding and nodata may differ."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from models.fire.batch import FireBatch, FireSpec

SPEC = FireSpec(
    patch=4,
    continuous=("elevation", "slope_east", "slope_north", "cbd"),
    categorical=(("fuels", 6), ("flora", 3)),
    static=7,
    cell_metres=20.0,
    wind_scale=(12.0, 6.0),
)


def random_batch(
    grids: tuple[tuple[int, int], ...] = ((6, 5), (3, 4)),
    frames: tuple[int, ...] = (5, 2),
    seed: int = 0,
    spec: FireSpec = SPEC,
) -> FireBatch:
    """Return one batch of samples with a grid and a number of frames each."""
    samples = [_sample(grid, count, seed + i, spec) for i, (grid, count) in enumerate(zip(grids, frames, strict=True))]
    return join(samples, spec)


def _sample(grid: tuple[int, int], frames: int, seed: int, spec: FireSpec) -> FireBatch:
    make = torch.Generator().manual_seed(seed)
    height, width = grid[0] * spec.patch, grid[1] * spec.patch
    tokens = grid[0] * grid[1]
    blobs = F.avg_pool2d(torch.randn(1, 1, height, width, generator=make), 5, stride=1, padding=2)[:, 0]
    domain = blobs > -0.3
    domain[:, -2:], domain[:, :, -1] = False, False
    domain[:, : spec.patch, : spec.patch] = True
    spot = torch.randn(1, 1, height, width, generator=make)
    heat = F.avg_pool2d(spot, 5, stride=1, padding=2)[:, 0]
    age = ((heat - heat.mean()) / 0.12).clamp(0, frames).ceil().to(torch.uint8) * domain
    terrain_valid = (torch.rand(1, len(spec.continuous), height, width, generator=make) > 0.1) & domain[:, None]
    classes = [torch.randint(0, count, (1, height, width), generator=make) for _, count in spec.categorical]
    share = F.max_pool2d(domain[:, None].float(), spec.patch).flatten(1) > 0
    angle = torch.rand(1, frames, generator=make) * 6.28
    wind = torch.stack([torch.randn(1, frames, generator=make), angle.sin(), angle.cos()], -1)
    history = [_token_share(age > frames - 1 - t, domain, spec.patch) for t in range(frames)]
    return FireBatch(
        fire=torch.stack(history, 1),
        time_valid=torch.ones(1, frames, dtype=torch.bool),
        wind=wind,
        wind_valid=torch.ones(1, frames, dtype=torch.bool),
        static=torch.randn(1, tokens, spec.static, generator=make) * share[..., None],
        token_valid=share,
        age=age,
        terrain=torch.randn(1, len(spec.continuous), height, width, generator=make) * terrain_valid,
        terrain_valid=terrain_valid,
        classes=torch.stack(classes, 1) * domain[:, None],
        domain=domain,
        target=((heat - heat.mean() > -0.05) | (age > 0)) & domain,
        burnable=domain & (heat > heat.quantile(0.1)),
        counted=domain & (heat < heat.quantile(0.9)),
        fire_index=torch.tensor([seed]),
        step=torch.tensor([frames - 1]),
        grid=grid,
    )


def _token_share(burnt: Tensor, domain: Tensor, patch: int) -> Tensor:
    count = F.avg_pool2d(domain[:, None].float(), patch).flatten(1)
    return F.avg_pool2d((burnt & domain)[:, None].float(), patch).flatten(1) / count.clamp(min=1e-6)


def pad(batch: FireBatch, rows: int, columns: int, frames: int, spec: FireSpec = SPEC) -> FireBatch:
    """Return the batch with more token rows, token columns and frames of padding."""
    grid = (batch.grid[0] + rows, batch.grid[1] + columns)
    space = (0, columns * spec.patch, 0, rows * spec.patch)
    static = F.pad(batch.static.transpose(1, 2).unflatten(2, batch.grid), (0, columns, 0, rows)).flatten(2)
    fire = F.pad(batch.fire.unflatten(2, batch.grid), (0, columns, 0, rows, frames, 0)).flatten(2)
    pixels = ("age", "terrain", "terrain_valid", "classes", "domain", "burnable", "target", "counted")
    return replace(
        batch,
        grid=grid,
        fire=fire,
        static=static.transpose(1, 2),
        token_valid=F.pad(batch.token_valid.unflatten(1, batch.grid), (0, columns, 0, rows)).flatten(1),
        time_valid=F.pad(batch.time_valid, (frames, 0)),
        wind_valid=F.pad(batch.wind_valid, (frames, 0)),
        wind=F.pad(batch.wind, (0, 0, frames, 0)),
        **{name: F.pad(getattr(batch, name), space) for name in pixels},
    )


def join(batches: list[FireBatch], spec: FireSpec = SPEC) -> FireBatch:
    """Return one batch, padded to the largest sizes."""
    rows, columns = (max(b.grid[axis] for b in batches) for axis in (0, 1))
    frames = max(b.fire.shape[1] for b in batches)
    padded = [pad(b, rows - b.grid[0], columns - b.grid[1], frames - b.fire.shape[1], spec) for b in batches]
    names = [f.name for f in fields(FireBatch) if f.name != "grid"]
    return replace(padded[0], **{name: torch.cat([getattr(b, name) for b in padded]) for name in names})


def with_garbage(batch: FireBatch, seed: int = 9) -> FireBatch:
    """Return the batch with other values wherever a mask says that there is none."""
    make = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=make) * 50

    inside = batch.domain[:, None]
    frames = batch.time_valid.unsqueeze(-1) & batch.token_valid.unsqueeze(1)
    wind = (batch.wind_valid & batch.time_valid).unsqueeze(-1)
    terrain = batch.terrain_valid & inside
    return replace(
        batch,
        fire=torch.where(frames, batch.fire, noise(batch.fire)),
        wind=torch.where(wind, batch.wind, noise(batch.wind)),
        static=torch.where(batch.token_valid.unsqueeze(-1), batch.static, noise(batch.static)),
        terrain=torch.where(terrain, batch.terrain, noise(batch.terrain)),
        terrain_valid=batch.terrain_valid | ~inside,
        classes=torch.where(inside, batch.classes, 77),
        age=torch.where(batch.domain, batch.age, 3).to(torch.uint8),
        target=batch.target | ~batch.domain,
    )

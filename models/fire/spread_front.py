"""A learned fire front: minimum travel times over the pixel grid, with speeds that a network predicts.

Fire growth simulators move the front by minimum travel time (Finney 2002, "Fire growth using minimum travel time
methods", Can. J. For. Res. 32): a cell burns as soon as the quickest path from the present front reaches it. Here the
time along every edge of the 8-neighbour grid comes from a network, and the path search is exact: the gradient flows
along the quickest paths, so the network learns rates of spread from nothing but the next frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.fire_models import Head
from models.fire.batch import FireBatch
from models.fire.output import monotone
from models.reads import reads_are_free

STEPS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""Rows and columns from a pixel to its eight neighbours, clockwise from north."""
HORIZON = 4.0
"""Paths that take longer than this many frames are not followed."""
CLOSED = 1e4
"""Time across an edge that fire cannot take."""
SHORTEST = 0.02
"""Arrivals before this share of a frame are equally certain."""
INITIAL_TIME = math.log(1 / 14)
"""Before anything is learned the front moves 14 pixels in a frame."""
INITIAL_SHARPNESS = 1.0
ROUNDS = 4
"""Rounds of relaxation between two looks at whether there is anything left to find."""
Relaxation = Callable[[Tensor, Tensor], Tensor]


class SpreadFront(nn.Module):
    """From pixel features to logits through travel times: a pixel burns when its arrival lies within the next frame.

    The logit is `sharpness * -log(arrival)`: uncertainty of a travel time is relative, as that of a rate of spread is.
    """

    def __init__(self, kind: Head, features: int, reach: int = 72) -> None:
        super().__init__()
        self.reach = reach
        self._relax: Relaxation = relaxed
        self.speeds = nn.Conv2d(features, len(STEPS) + 2, 1)
        nn.init.zeros_(self.speeds.weight)
        with torch.no_grad():
            self.speeds.bias.copy_(torch.tensor([INITIAL_TIME] * len(STEPS) + [0.0, INITIAL_SHARPNESS]))  # type: ignore[union-attr]

    def compile_search(self) -> None:
        """Make kernels of the relaxation, whose many small ones are what a GPU waits for."""
        self._relax = torch.compile(relaxed, dynamic=True)

    def arrivals(self, features: Tensor, batch: FireBatch) -> tuple[Tensor, Tensor]:
        """Return when fire arrives, in frames after the last one, and the sharpness of the logit, both (B, H, W)."""
        outputs = self.speeds(features).float().contiguous()
        leave, enter, sharpness = outputs[:, : len(STEPS)], outputs[:, -2], outputs[:, -1]
        times = travel_times(leave, enter, batch.burnt & batch.domain, batch.burnable, self.reach, self._relax)
        return times, 3.0 * F.softplus(sharpness)

    def forward(self, features: Tensor, batch: FireBatch) -> Tensor:
        """Return (B, H, W) logits from (B, F, H, W) features."""
        times, sharpness = self.arrivals(features, batch)
        return monotone(-sharpness * times.clamp(min=SHORTEST).log(), batch)


def travel_times(
    leave: Tensor, enter: Tensor, burnt: Tensor, open_to_fire: Tensor, reach: int, relax: Relaxation | None = None
) -> Tensor:
    """Return when the fire arrives at every pixel, in frames, as (B, H, W): 0 where burnt, `HORIZON` at most.

    `leave` (B, 8, H, W) is the logarithm of the time that fire takes from a pixel to its neighbour in each of `STEPS`,
    for a neighbour at distance 1; `enter` (B, H, W) is added for the pixel entered. Only pixels `open_to_fire`
    (B, H, W) are entered, and only those whose row and column are at most `reach` from a burnt one's. `reach` rounds of
    relaxation, rounded up to a multiple of `ROUNDS`, find every quickest path of so many edges, and many longer ones.
    """
    height, width = burnt.shape[-2:]
    near_rows, near_columns = _near(burnt.any(2), reach), _near(burnt.any(1), reach)
    rows, columns = slice(0, height), slice(0, width)
    if reads_are_free(burnt):
        rows, columns = _extent(near_rows), _extent(near_columns)
    near = near_rows[:, rows, None] & near_columns[:, None, columns]
    burnt = burnt[:, rows, columns]
    times = edge_times(leave[..., rows, columns], enter[:, rows, columns], open_to_fire[:, rows, columns] & near)
    with torch.no_grad():
        directions = quickest_paths(times, burnt, reach, relax or relaxed)
    arrivals = path_sums(times, directions, burnt, reach)
    around = (columns.start, width - columns.stop, rows.start, height - rows.stop)
    return F.pad(arrivals, around, value=HORIZON)


def edge_times(leave: Tensor, enter: Tensor, open_to_fire: Tensor) -> Tensor:
    """Return (B, 8, H, W): for each pixel, the time of the edge by which `STEPS[d]` enters it."""
    height, width = enter.shape[-2:]
    padded = F.pad(leave, (1, 1, 1, 1), value=math.log(CLOSED))
    incoming = [padded[:, d, 1 - r : 1 - r + height, 1 - c : 1 - c + width] for d, (r, c) in enumerate(STEPS)]
    lengths = leave.new_tensor([math.log(math.hypot(*step)) for step in STEPS]).view(1, 8, 1, 1)
    times = torch.stack(incoming, 1).add_(enter[:, None]).add_(lengths).clamp(-7.0, 5.0).exp()
    return times.masked_fill(~open_to_fire[:, None], CLOSED)


def _near(lines: Tensor, reach: int) -> Tensor:
    """Return (B, L) bool: lines at most `reach` away from one that is set."""
    return F.max_pool1d(lines.float().unsqueeze(1), 2 * reach + 1, 1, reach).squeeze(1) > 0


def _extent(lines: Tensor) -> slice:
    """Return the slice from the first to the last line that is set in any sample."""
    found = lines.any(0).nonzero()
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 1)


def quickest_paths(times: Tensor, burnt: Tensor, reach: int, relax: Relaxation) -> Tensor:
    """Return (B, H, W) int64: the direction in which the quickest path enters each pixel, -1 where none does.

    Bellman-Ford on the whole grid at once: after k rounds, all paths of k edges have been tried. More rounds than a
    sample needs change nothing about it, so batch mates do not matter.
    """
    edges = times.transpose(0, 1).contiguous()
    arrival = F.pad(torch.where(burnt, 0.0, HORIZON).to(edges.dtype), (1, 1, 1, 1), value=HORIZON)
    for _ in range(-(-reach // ROUNDS)):
        before, arrival = arrival, relax(arrival, edges)
        if reads_are_free(arrival) and torch.equal(before, arrival):
            break
    through = torch.empty_like(edges[0])
    best = torch.full_like(through, HORIZON)
    directions = torch.full_like(burnt, -1, dtype=torch.int8)
    for d, (source, edge) in enumerate(zip(_neighbours(arrival), edges, strict=True)):
        torch.add(source, edge, out=through)
        directions.masked_fill_(through < best, d)
        torch.minimum(best, through, out=best)
    return directions.masked_fill_(burnt, -1).long()


def relaxed(arrival: Tensor, edges: Tensor) -> Tensor:
    """Return arrivals (B, H + 2, W + 2), with a border, after `ROUNDS` rounds over the edges (8, B, H, W)."""
    arrival = arrival.clone()
    inner, through = arrival[:, 1:-1, 1:-1], torch.empty_like(edges[0])
    for _ in range(ROUNDS):
        for source, edge in zip(_neighbours(arrival), edges, strict=True):
            torch.add(source, edge, out=through)
            torch.minimum(inner, through, out=inner)
    return arrival


def _neighbours(arrival: Tensor) -> list[Tensor]:
    """Return for each of `STEPS` the view (B, H, W) of bordered arrivals from which it enters a pixel."""
    height, width = arrival.shape[1] - 2, arrival.shape[2] - 2
    return [arrival[:, 1 - r : 1 - r + height, 1 - c : 1 - c + width] for r, c in STEPS]


def path_sums(times: Tensor, directions: Tensor, burnt: Tensor, reach: int) -> Tensor:
    """Return (B, H, W): the sum of edge times along each pixel's path, differentiable in `times`.

    Pointer doubling: each pixel adds the sum of the pixel that its pointer leads to, then takes over that pointer.
    """
    height, width = burnt.shape[-2:]
    reached = (directions >= 0).flatten(1)
    chosen = directions.clamp(min=0).flatten(1)
    back = torch.tensor([rows * width + columns for rows, columns in STEPS], device=times.device)
    here = torch.arange(height * width, device=times.device)
    pointer = torch.where(reached, here - back[chosen], here)
    sums = times.flatten(2).gather(1, chosen[:, None]).squeeze(1).masked_fill(~reached, 0.0)
    for _ in range((2 * reach).bit_length()):
        sums = sums + sums.gather(1, pointer)
        pointer = pointer.gather(1, pointer)
    sums = sums.masked_fill(~reached & ~burnt.flatten(1), HORIZON)
    return sums.clamp(max=HORIZON).view_as(burnt)

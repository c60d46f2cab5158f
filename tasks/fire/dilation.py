"""Baselines that any model must beat: copying the last frame, and dilating it over burnable fuels.

`Dilation` burns what lies within a radius of the burnt area, kept to burnable fuels; the wind-aware form makes the
radius grow with wind speed and shifts the burnt area downwind. Its parameters are tuned on training fires.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from models.fire.batch import FireBatch, FireSpec

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SpreadState:
    """What a dilation looks at: one sample as arrays."""

    last: Mask
    """(H, W) burnt in the last frame."""
    burnable: Mask
    """(H, W) domain pixels whose fuel can burn."""
    wind_speed: float
    """In the archive's own unit."""
    downwind: tuple[float, float]
    """Unit vector (rows, columns) that the wind blows TO; (0, 0) where the wind is not known."""


def downwind(sin: float, cos: float) -> tuple[float, float]:
    """Return the (rows, columns) that a wind FROM the direction (sin, cos) blows to; row 0 is the north."""
    return float(cos), float(-sin)


@dataclass(frozen=True)
class Dilation:
    """Euclidean dilation by `radius + radius_per_wind * speed`, moved by `shift_per_wind * speed` downwind."""

    radius: float
    """Pixels."""
    radius_per_wind: float = 0.0
    """Pixels per unit of wind speed."""
    shift_per_wind: float = 0.0
    """Pixels per unit of wind speed, rounded to whole pixels."""

    def probability(self, state: SpreadState) -> NDArray[np.float32]:
        """Return a score of (H, W) in 0..1: at least 0.5 exactly where the dilation burns, and 1 in the last frame.

        It halves with every radius of distance, so that it can be ranked (average precision) too.
        """
        reach = max(self.radius + self.radius_per_wind * state.wind_speed, 1e-6)
        distance = np.sqrt(_squared_distances(state, [self.shift_per_wind])[0].astype(np.float64))
        score = np.where(state.burnable, np.exp2(-distance / reach), 0.0)
        return np.where(state.last, 1.0, score).astype(np.float32)


FAR = 2**40  # squared pixels: nothing burns yet


def _squared_distances(state: SpreadState, shifts_per_wind: Sequence[float]) -> list[NDArray[np.int64]]:
    """Squared distance of every pixel to the burnt area, moved downwind by whole pixels, (H, W) for each shift."""
    from scipy.ndimage import distance_transform_edt

    if not state.last.any():
        return [np.full(state.last.shape, FAR)] * len(shifts_per_wind)
    moves = [[round(shift * state.wind_speed * part) for part in state.downwind] for shift in shifts_per_wind]
    margin = max(abs(part) for move in moves for part in move)
    height, width = state.last.shape
    distance = distance_transform_edt(~np.pad(state.last, margin))
    squared = np.rint(distance * distance).astype(np.int64)
    return [
        squared[margin - rows : margin - rows + height, margin - columns : margin - columns + width]
        for rows, columns in moves
    ]


def tune_dilations(
    samples: Iterable[tuple[SpreadState, Mask]],
    radii: Sequence[float],
    radius_per_wind: Sequence[float],
    shift_per_wind: Sequence[float],
) -> tuple[Dilation, Dilation]:
    """Return the isotropic and the wind-aware dilation with the highest pooled growth-F1.

    Args:
        samples: states with what newly burns in the next frame, (H, W).
        radii: candidates for `Dilation.radius`.
        radius_per_wind: candidates for `Dilation.radius_per_wind`.
        shift_per_wind: candidates for `Dilation.shift_per_wind`.

    Raises:
        ValueError: nothing grows in any sample.
    """
    base, slope = np.meshgrid(np.array(radii, float), np.array(radius_per_wind, float), indexing="ij")
    hits = np.zeros((*base.shape, len(shift_per_wind)), np.int64)
    false, growth = np.zeros_like(hits), 0
    flat = np.zeros((len(radii), 2), np.int64)
    for state, new in samples:
        growth += int(new.sum())
        still, *moved = _squared_distances(state, [0.0, *shift_per_wind])
        reach = np.floor(np.maximum(base + slope * state.wind_speed, 0) ** 2).astype(np.int64)
        for index, squared in enumerate(moved):
            found = _within(state, new, squared, reach)
            hits[..., index] += found[0]
            false[..., index] += found[1]
        level = np.floor(np.array(radii, float) ** 2).astype(np.int64)
        flat += np.stack(_within(state, new, still, level), axis=-1)
    if not growth:
        raise ValueError("no training fire grows, so no dilation can be tuned; give fires with growth")
    isotropic = int(np.argmax(2 * flat[:, 0] / (flat.sum(axis=1) + growth)))
    f1 = 2 * hits / (hits + false + growth)
    best, per_wind, shift = (int(index) for index in np.unravel_index(int(np.argmax(f1)), f1.shape))
    aware = Dilation(float(radii[best]), float(radius_per_wind[per_wind]), float(shift_per_wind[shift]))
    return Dilation(float(radii[isotropic])), aware


def _within(state: SpreadState, new: Mask, squared: NDArray[np.int64], reach: NDArray[np.int64]) -> tuple[Any, Any]:
    """Count hits and false alarms of all squared radii at once."""
    largest = int(reach.max())
    near = (squared <= largest) & state.burnable & ~state.last
    counted = [np.bincount(squared[near & part], minlength=largest + 1).cumsum() for part in (new, ~new)]
    return counted[0][reach], counted[1][reach]


def spread_states(batch: FireBatch, spec: FireSpec) -> Iterator[SpreadState]:
    """Yield the samples of a batch as a dilation sees them."""
    last, burnable = (batch.burnt & batch.domain).cpu().numpy(), batch.burnable.cpu().numpy()
    wind = batch.wind[:, -1].cpu().numpy().astype(np.float64)
    known = batch.wind_valid[:, -1].cpu().numpy()
    mean, std = spec.wind_scale
    for i in range(len(last)):
        speed = mean + std * wind[i, 0] if known[i] else mean
        towards = downwind(wind[i, 1], wind[i, 2]) if known[i] else (0.0, 0.0)
        yield SpreadState(last[i], burnable[i], max(float(speed), 0.0), towards)


@dataclass(frozen=True)
class DilationPredictor:
    """A dilation as a predictor of batches."""

    dilation: Dilation
    spec: FireSpec

    def __call__(self, batch: FireBatch) -> Tensor:
        """Return scores of (B, H, W)."""
        import torch

        scores = [self.dilation.probability(state) for state in spread_states(batch, self.spec)]
        return torch.from_numpy(np.stack(scores)).to(batch.age.device)


def copy_last(batch: FireBatch) -> Tensor:
    """CopyLast: nothing new burns; (B, H, W)."""
    return batch.burnt.float()


def fit_dilations(
    batches: Iterable[FireBatch],
    spec: FireSpec,
    radii: Sequence[float],
    radius_per_wind: Sequence[float],
    shift_per_wind: Sequence[float],
) -> tuple[DilationPredictor, DilationPredictor]:
    """Return the isotropic and the wind-aware dilation, tuned on batches of training fires."""

    def samples() -> Iterator[tuple[SpreadState, Mask]]:
        for batch in batches:
            counted = batch.counted.cpu().numpy()
            new = (batch.target & ~batch.burnt).cpu().numpy() & counted
            for state, grown, scored in zip(spread_states(batch, spec), new, counted, strict=True):
                yield replace(state, burnable=state.burnable & scored), grown

    isotropic, aware = tune_dilations(samples(), radii, radius_per_wind, shift_per_wind)
    return DilationPredictor(isotropic, spec), DilationPredictor(aware, spec)

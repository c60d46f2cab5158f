"""What every fire model is built for and is fed with: one batch of fires, as tokens and as pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class FireSpec:
    """The shape of a data set, so far as it shapes a model."""

    patch: int
    """Pixels along the side of a token, P."""
    continuous: tuple[str, ...]
    """Names of the pixel channels in `FireBatch.terrain`, C of them; `slope_east` and `slope_north` (metres per metre)
    are among them where the archive has an elevation."""
    categorical: tuple[tuple[str, int], ...]
    """Name and number of classes K of every band in `FireBatch.classes`; class 0 is "no value, or never seen in
    training", so codes run from 0 to K - 1."""
    static: int
    """Channels of `FireBatch.static`, S."""
    cell_metres: float
    """Side of a pixel in metres."""
    wind_scale: tuple[float, float]
    """Mean and standard deviation by which wind speed was standardised, in the archive's own unit."""


@dataclass
class FireBatch:
    """B samples "history of a fire -> its next frame", padded to common sizes; H = Gy * P, W = Gx * P, N = Gy * Gx.

    Time is padded on the left, so the last frame is always at T - 1; space is padded at the bottom and on the right.
    Padding, nodata and what lies outside the domain holds zeros, and no result may depend on what it holds.
    """

    fire: Tensor
    """(B, T, N) float: burnt share of the domain pixels of a token."""
    time_valid: Tensor
    """(B, T) bool: frames that exist. The last is always valid."""
    wind: Tensor
    """(B, T, 3) float: standardised speed, sin and cos of the direction that it blows FROM (degrees clockwise from
    north). Row t drives frame t to t + 1, so the last row is the wind of the step to be predicted."""
    wind_valid: Tensor
    """(B, T) bool: rows with a measured wind."""
    static: Tensor
    """(B, N, S) float: standardised means over valid pixels, valid shares per band, and class histograms."""
    token_valid: Tensor
    """(B, N) bool: tokens with at least one domain pixel."""
    age: Tensor
    """(B, H, W) uint8: frames since a pixel first burnt; 0 unburnt, 1 burnt first in the last frame, clipped to the
    length of the history. Frames are nested, so this is all of the history at pixel resolution."""
    terrain: Tensor
    """(B, C, H, W) float: standardised continuous bands; 0 where invalid."""
    terrain_valid: Tensor
    """(B, C, H, W) bool."""
    classes: Tensor
    """(B, Q, H, W) int64: class codes of the Q categorical bands; 0 where invalid."""
    domain: Tensor
    """(B, H, W) bool: pixels inside the crop where the fuel band has a value."""
    burnable: Tensor
    """(B, H, W) bool: domain pixels whose fuel can burn, by the codes that the archive declares unburnable."""
    target: Tensor
    """(B, H, W) bool: burnt in the next frame."""
    counted: Tensor
    """(B, H, W) bool: the domain pixels that loss and scores count. All of them, except where a sample shows only part
    of its crop: pixels nearer to fire out of sight than to fire in sight do not count, for no model can know of it."""
    fire_index: Tensor
    """(B,) int64: which fire of the cache."""
    step: Tensor
    """(B,) int64: t, the number of the last history frame; the target is frame t + 1."""
    grid: tuple[int, int]
    """(Gy, Gx)."""

    @property
    def burnt(self) -> Tensor:
        """(B, H, W) bool: the last frame."""
        return self.age > 0

    def __len__(self) -> int:
        return len(self.step)

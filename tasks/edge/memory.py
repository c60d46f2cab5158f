"""The episodic memory: a Gaussian over a matrix of slots, written code by code and completed from cues.

Larimar's generative parametric memory (arXiv 2403.11901), the formulae of `models/vision_language/gaussian_memory.py`
in numpy. With mean R (K, C), covariance U (K, K) and noise s, a code z (C,) is written at the address w through

    w = (R R' + s² I)^-1 R z    g = U w / (w' U w + s²)    R <- R + g (z - R' w)'    U <- U - g (U w)'

and a cue q that is a part of a code brings back the whole of it, R' w, from

    w = (R R' + C U + s² I)^-1 R q

With prior mean P and variance V it forgets a code of address w, so that there is room again, through

    a = w - U w / V    g = U a    f = 1 / (g' (g / V))
    R <- R - f g (g' ((R - P) / V))    U <- U + (f - 1 / (a' g)) g g'

A code is the sum of what an image shows and of when it was seen, each of length 1, over the root of 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Floats = NDArray[np.float64]
Tensors = Mapping[str, NDArray[np.generic]]
SCALES = "_scales"
REMARK = "model"


def matrix(tensors: Tensors, name: str) -> Floats:
    """Return a tensor; a matrix of integers is multiplied with the scales of its rows, `NAME_scales` (rows, 1)."""
    values = tensors[name].astype(np.float64)
    return values * tensors[name + SCALES].astype(np.float64) if name + SCALES in tensors else values


class EpisodicMemory:
    """The images that were seen, in this conversation and in those before."""

    def __init__(self, tensors: Tensors, noise: float) -> None:
        """Make an empty memory.

        Args:
            tensors: `prior_mean` (K, C), `prior_variance` (K,), and `when` (T, C), which tells T images in turn apart.
                Matrices may be integers with `_scales`.
            noise: s.
        """
        self._tensors, self._noise = tensors, noise
        self._when = matrix(tensors, "when")
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.mean = matrix(self._tensors, "prior_mean")
        self.covariance = np.diag(matrix(self._tensors, "prior_variance"))
        self.seen = 0
        """How many images were written."""

    @property
    def number(self) -> int:
        """What questions call the last image: after as many as the memory tells apart, numbers begin again at 1."""
        return (self.seen - 1) % len(self._when) + 1

    def write(self, content: NDArray[np.floating]) -> None:
        """Store what an image shows (C,) as the next that was seen; where there is no place, the oldest makes room."""
        when = self._when[self.seen % len(self._when)]
        if self.seen >= len(self._when):
            self._forget(self.complete(when / 2**0.5))
        code = (content + when) / 2**0.5
        address = self._solve(self.mean @ self.mean.T, self.mean @ code)
        spread = self.covariance @ address
        gain = spread / (address @ spread + self._noise**2)
        self.mean = self.mean + np.outer(gain, code - self.mean.T @ address)
        self.covariance = self.covariance - np.outer(gain, spread)
        self.seen += 1

    def _forget(self, code: Floats) -> None:
        prior, variance = matrix(self._tensors, "prior_mean"), matrix(self._tensors, "prior_variance")
        address = self._solve(self.mean @ self.mean.T, self.mean @ code)
        address = address - self.covariance @ address / variance
        spread = self.covariance @ address
        precise = spread / variance
        freed = 1 / (spread @ precise)
        self.mean = self.mean - freed * np.outer(spread, precise @ (self.mean - prior))
        self.covariance = self.covariance + (freed - 1 / (address @ spread)) * np.outer(spread, spread)

    def complete(self, cue: NDArray[np.floating]) -> Floats:
        """Return the code (C,) of which a cue (C,) is a part."""
        matrix = self.mean @ self.mean.T + self.mean.shape[1] * self.covariance
        return self.mean.T @ self._solve(matrix, self.mean @ cue)

    def _solve(self, matrix: Floats, right: Floats) -> Floats:
        matrix[np.diag_indices_from(matrix)] += self._noise**2
        return np.linalg.solve(matrix, right).astype(np.float64, copy=False)

    def save(self, path: Path, model: str) -> None:
        """Keep what is stored in a file, as the conversations of torch do."""
        state = {
            "mean": self.mean[None].astype(np.float32),
            "covariance": self.covariance[None].astype(np.float32),
            "seen": np.array(self.seen),
        }
        partial = path.with_name(f".{path.name}.tmp")
        save_file(state, partial, metadata={REMARK: model})
        partial.replace(path)

    def load(self, path: Path, model: str) -> None:
        """Go on with what a file holds; `ValueError` where it is none, or the memory of another model."""
        try:
            with safe_open(path, "np") as file:
                remark = (file.metadata() or {}).get(REMARK)
                mean, covariance, seen = (file.get_tensor(name) for name in ("mean", "covariance", "seen"))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read as a memory ({error}); delete it to begin anew") from None
        if remark != model or mean.shape != (1, *self.mean.shape):
            raise ValueError(f"{path} is the memory of {remark}, not of {model}; name another file, or delete it")
        self.mean, self.covariance = mean[0].astype(np.float64), covariance[0].astype(np.float64)
        self.seen = int(seen)

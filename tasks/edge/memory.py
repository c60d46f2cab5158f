"""The episodic memory: a Gaussian over a matrix of slots, written code by code and read by least squares.

Larimar's generative parametric memory (arXiv 2403.11901), the formulae of `models/vision_language/gaussian_memory.py`
in numpy. With mean R (K, C), row covariance U (K, K) and noise s, a code z (C,) has the address and the reading

    w = (R R' + s² I)^-1 R z    r = R' w

and a write at that address ends in

    g = U w / (w' U w + s²)    R <- R + g (z - R' w)'    U <- U - g (U w)'

A reading is turned into vectors for the decoder, weighed by the probability that the memory knows about the code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

Floats = NDArray[np.float64]
Tensors = Mapping[str, NDArray[np.generic]]
SCALES = "_scales"

_erf = np.vectorize(math.erf, otypes=[np.float64])


def matrix(tensors: Tensors, name: str) -> Floats:
    """Return a matrix; one of integers is multiplied with the scales of its rows, `NAME_scales` (rows, 1)."""
    values = tensors[name].astype(np.float64)
    return values * tensors[name + SCALES].astype(np.float64) if name + SCALES in tensors else values


class EpisodicMemory:
    """What was seen in this and earlier conversations."""

    def __init__(self, tensors: Tensors, noise: float) -> None:
        """Make an empty memory.

        Args:
            tensors: `prior_mean` (K, C) and `prior_variance` (K,); ScopeNet's weights, below `scope.`;
                `vectors.weight` (V * H, C) and `vectors.bias` (V * H,), from a reading to V vectors of the decoder's H
                channels. Matrices may be integers with `_scales`.
            noise: s.
        """
        self._tensors, self._noise = tensors, noise
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.mean = matrix(self._tensors, "prior_mean")
        self.covariance = np.diag(matrix(self._tensors, "prior_variance"))

    def address(self, code: Floats) -> Floats:
        """Return the address (K,) of a code (C,)."""
        gram = self.mean @ self.mean.T
        gram[np.diag_indices_from(gram)] += self._noise**2
        return np.linalg.solve(gram, self.mean @ code).astype(np.float64, copy=False)

    def read(self, code: Floats) -> Floats:
        """Return what a code (C,) recalls, (C,)."""
        return self.mean.T @ self.address(code)

    def write(self, code: Floats) -> None:
        """Store a code (C,)."""
        address = self.address(code)
        spread = self.covariance @ address
        gain = spread / (address @ spread + self._noise**2)
        self.mean = self.mean + np.outer(gain, code - self.mean.T @ address)
        self.covariance = self.covariance - np.outer(gain, spread)

    def scope(self, code: Floats, reading: Floats) -> float:
        """Return the probability that the memory knows about a code (C,) that recalls this (C,)."""
        unit = code / max(_norm(code), 1e-12)
        hidden = self._linear("scope.query", unit) + self._linear("scope.statistics", reading_statistics(code, reading))
        for layer in ("scope.layers.1", "scope.layers.3"):
            hidden = self._linear(layer, hidden * 0.5 * (1 + _erf(hidden / math.sqrt(2))))
        return 1 / (1 + math.exp(-hidden.item()))

    def recall(self, code: Floats, width: int) -> NDArray[np.float32]:
        """Return the vectors (V, width) that tell the decoder what a code (C,) recalls."""
        reading = self.read(code)
        vectors = self.scope(code, reading) * self._linear("vectors", reading)
        return vectors.reshape(-1, width).astype(np.float32)

    def save(self, path: Path) -> None:
        """Keep what is stored in a file, under the names and shapes of torch's `MemoryState`."""
        state = {"mean": self.mean[None].astype(np.float32), "covariance": self.covariance[None].astype(np.float32)}
        partial = path.with_name(f".{path.name}.tmp")
        save_file(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on with what a file holds; `ValueError` where it is none of this memory's."""
        try:
            state = load_file(path)
            mean, covariance = state["mean"], state["covariance"]
        except (SafetensorError, OSError, KeyError) as error:
            raise ValueError(f"{path} holds no memory: {error}; name another file, or remove it") from error
        if mean.shape != (1, *self.mean.shape) or covariance.shape != (1, *self.covariance.shape):
            raise ValueError(
                f"{path} is the memory of a model with {' x '.join(map(str, mean.shape[1:]))} values, this one has "
                f"{' x '.join(map(str, self.mean.shape))}; name another file, or remove it"
            )
        self.mean, self.covariance = mean[0].astype(np.float64), covariance[0].astype(np.float64)

    def _linear(self, name: str, values: Floats) -> Floats:
        return matrix(self._tensors, f"{name}.weight") @ values + matrix(self._tensors, f"{name}.bias")


def reading_statistics(code: Floats, reading: Floats) -> Floats:
    """Return cosine, |q - r| / |q| and log(|r| / |q|) of a code and its reading (C,), as (3,)."""
    size, length = max(_norm(code), 1e-6), max(_norm(reading), 1e-6)
    cosine = (code @ reading).item() / max(_norm(code) * _norm(reading), 1e-8)
    return np.array([cosine, _norm(code - reading) / size, math.log(length / size)])


def _norm(values: Floats) -> float:
    return float(np.linalg.norm(values))

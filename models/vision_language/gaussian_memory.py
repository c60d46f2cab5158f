"""The episodic memory: a Gaussian over a matrix of slots, written in closed form and read by least squares.

Larimar's generative parametric memory (arXiv 2403.11901, after the Kanerva machine, arXiv 1804.01756). A memory M of K
slots and C channels has a matrix normal distribution with mean R (K, C), row covariance U (K, K) and independent
columns. A code is what an address w ~ N(0, I) reads, with noise s in every channel:

    z = M' w + s e,    e ~ N(0, I)

Addressing: w = (R R' + s² I)^-1 R z, through the mean of the memory as it is now; after a write that is the posterior,
where a code that was written has the address that it was written at.
Writing: codes Z (E, C) at addresses W (E, K), taken through the memory before the write. The posterior is

    G = U W' (W U W' + s² I)^-1    R <- R + G (Z - W R)    U <- U - G W U

whose mean minimises |Z - W R|² / s² + |R - R0|², the second weighed by U^-1. Adding codes one by one by
Sherman-Morrison at the same addresses ends in the same posterior.
Editing: the content at an address is replaced by a change of the mean along U w, which is what the other codes leave
free, for under the posterior the contents of two addresses have a covariance of order s^4 only. U stays: nothing more
is known. So the memory is as if the new code had been written in the old one's place.
Forgetting: along X = U W' the mean goes back to the prior's, and the variance is given back. With s towards zero that
is the posterior without the codes:

    R <- R - X (X' P X)^-1 X' P (R - R0)    U <- U + X ((X' P X)^-1 - (W U W')^-1) X'    with P = U0^-1

Both need addresses more exactly than s²: I - P U takes from an address what no written address has.

All of it is computed in float64, also inside autocast, which leaves float64 alone; states are float32. Codes should
have norms near 1, for s is in their units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Generator, Tensor, nn

from configs.vision_language_memory import Solver

LARGEST_LOGVAR = 6.0
"""Log-variances of the prior act as if within plus and minus this: posteriors stay positive definite in float32."""


@dataclass(frozen=True)
class MemoryState:
    """What the memories of B episodes hold. A state of one episode can be read and written for a batch."""

    mean: Tensor
    """Mean of the memory, (B, K, C)."""
    covariance: Tensor
    """Covariance of its rows, the same for every column, (B, K, K)."""

    def detach(self) -> MemoryState:
        """Return the same state outside the graph of gradients."""
        return MemoryState(self.mean.detach(), self.covariance.detach())

    def to(self, device: torch.device | str) -> MemoryState:
        """Return the state on a device."""
        return MemoryState(self.mean.to(device), self.covariance.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """Return the state under the names in which files keep it."""
        return {"mean": self.mean.detach().contiguous(), "covariance": self.covariance.detach().contiguous()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> MemoryState:
        """Return the state of which `tensors()` was kept.

        Raises:
            ValueError: a tensor is missing, or their shapes do not belong together.
        """
        missing = {"mean", "covariance"} - tensors.keys()
        if missing:
            raise ValueError(f"the memory's state lacks {', '.join(sorted(missing))}; save it again")
        mean, covariance = tensors["mean"], tensors["covariance"]
        if mean.dim() != 3 or covariance.shape != (*mean.shape[:2], mean.shape[1]):
            raise ValueError(
                f"the memory's state has a mean of {tuple(mean.shape)} and a covariance of {tuple(covariance.shape)}, "
                "not (B, K, C) and (B, K, K); save it again"
            )
        return cls(mean, covariance)


class GaussianMemory(nn.Module):
    """A prior over memories of K slots and C channels, and how memories are written, read, edited and compared.

    The prior is learned: mean `prior_mean` (K, C), a log-variance per slot `prior_logvar` (K,); so is the log-variance
    of sampled addresses, `address_logvar` (K,). To reset a memory is to take `prior()`.

    Shapes: B episodes, E codes, Q queries, K slots, C channels. Wherever codes or queries have B episodes, the state
    may have one.
    """

    def __init__(
        self,
        slots: int = 512,
        width: int = 896,
        noise: float = 0.01,
        solver: Solver = "exact",
        ben_cohen_steps: int = 15,
    ) -> None:
        """Make a memory with a random prior.

        Args:
            slots: K.
            width: C.
            noise: standard deviation s of every channel of a code around what is stored.
            solver: `exact` by Cholesky factors, or `ben_cohen` by products of matrices alone.
            ben_cohen_steps: steps of `ben_cohen`.

        Raises:
            ValueError: a solver that does not exist, or a noise that is not positive.
        """
        super().__init__()
        if solver not in get_args(Solver):
            raise ValueError(f"the memory's solver is {solver!r}; choose one of {', '.join(get_args(Solver))}")
        if not noise > 0:
            raise ValueError(f"the memory's noise is {noise}; it must be positive, for systems are solved with it")
        self._noise, self._solver, self._steps = noise, solver, ben_cohen_steps
        self.slots = nn.Embedding.from_pretrained(torch.randn(slots, width) / math.sqrt(width), freeze=False)
        self.prior_logvar = nn.Parameter(torch.zeros(slots))
        self.address_logvar = nn.Parameter(torch.full((slots,), 2 * math.log(noise)))

    @property
    def prior_mean(self) -> Tensor:
        """The mean of the prior, (K, C): an embedding of slots, so that it is quantised and packed as others are."""
        mean: Tensor = self.slots(torch.arange(len(self.prior_logvar), device=self.prior_logvar.device))
        return mean

    def prior(self, batch: int = 1) -> MemoryState:
        """Return the memory of episodes in which nothing was written; that of one serves all and is solved once."""
        mean, variance = self.prior_mean, self._prior_variance()
        dtype = torch.promote_types(mean.dtype, torch.float32)
        return MemoryState(mean.to(dtype).expand(batch, -1, -1), variance.diag_embed().to(dtype).expand(batch, -1, -1))

    def write(
        self,
        codes: Tensor,
        mask: Tensor | None = None,
        state: MemoryState | None = None,
        addresses: Tensor | None = None,
    ) -> MemoryState:
        """Return the posterior after E codes, all at once.

        Args:
            codes: (B, E, C).
            mask: (B, E), true for codes that are there; all when absent.
            state: what was in memory before; the prior when absent.
            addresses: (B, E, K); through the memory before the write when absent.
        """
        state = state or self.prior()
        codes = codes if mask is None else codes.masked_fill(~mask[..., None], 0)
        addresses = self.address(codes, state)[0] if addresses is None else addresses
        w = addresses if mask is None else addresses.masked_fill(~mask[..., None], 0)
        mean, covariance, codes, w = _doubles(state.mean, state.covariance, codes, w)
        spread = covariance @ w.mT
        gain = self._solve(_add_to_diagonal(w @ spread, self._noise**2), spread.mT).mT
        return _like(state, mean + gain @ (codes - w @ mean), covariance - gain @ spread.mT)

    def update(self, codes: Tensor, state: MemoryState, addresses: Tensor | None = None) -> MemoryState:
        """Return the posterior after one more code (B, C) by a Sherman-Morrison update.

        `addresses`, (B, K), go through the current memory when absent.
        """
        if addresses is None:
            addresses = self.address(codes[:, None], state)[0][:, 0]
        mean, covariance, z, w = _doubles(state.mean, state.covariance, codes[:, None], addresses[:, None])
        spread = covariance @ w.mT
        gain = spread / (w @ spread + self._noise**2)
        return _like(state, mean + gain @ (z - w @ mean), covariance - gain @ spread.mT)

    def address(self, queries: Tensor, state: MemoryState, sample: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the addresses of queries (B, Q, C) in the current memory, as means (B, Q, K) and samples (B, Q, K).

        Without a generator the samples are the means themselves.
        """
        self._check_width(queries)
        mean, z = _doubles(state.mean, queries)
        episodes = len(z)
        if len(mean) == 1:
            z = z.flatten(0, 1)[None]
        w = self._solve(_add_to_diagonal(mean @ mean.mT, self._noise**2), mean @ z.mT).mT
        w = (w.unflatten(1, (episodes, -1))[0] if len(mean) == 1 else w).to(state.mean.dtype)
        if sample is None:
            return w, w
        return w, w + (0.5 * self.address_logvar).exp() * _normal_like(w, sample)

    def read(self, queries: Tensor, state: MemoryState, generator: Generator | None = None) -> Tensor:
        """Return what queries (B, Q, C) recall, (B, Q, C), in their dtype.

        Without a generator it is the mean at the mean address. With one the address is sampled, and so is the noise.
        """
        _, w = self.address(queries, state, generator)
        mean, w = _doubles(state.mean, w)
        found = w @ mean
        if generator is not None:
            found = found + self._noise * _normal_like(found, generator)
        return found.to(queries.dtype)

    def complete(self, cues: Tensor, state: MemoryState, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return mean addresses (B, Q, K) and contents (B, Q, C) of the codes of which cues (B, Q, C) are a part.

        The address minimises the error that is expected under the posterior, not that of its mean alone:

            E |z - M' w|² + s² |w|² = |z - R' w|² + C w' U w + s² |w|²

        Where nothing was written U is large, so a cue is explained by codes that were written, and the rest of a code
        comes with the part that the cue names. `read` explains it by whatever the prior happens to hold as well.
        """
        self._check_width(cues)
        mean, covariance, z = _doubles(state.mean, state.covariance, cues)
        matrix = _add_to_diagonal(mean @ mean.mT + mean.shape[-1] * covariance, self._noise**2)
        w = self._solve(matrix, mean @ z.mT).mT
        found = w if generator is None else w + (0.5 * self.address_logvar).exp() * _normal_like(w, generator)
        content = found @ mean
        if generator is not None:
            content = content + self._noise * _normal_like(content, generator)
        return w.to(state.mean.dtype), content.to(cues.dtype)

    def edit(self, old: Tensor, new: Tensor, state: MemoryState) -> MemoryState:
        """Return the memory with `new` (B, N, C) at the addresses of `old` (B, N, C); what else is stored stays."""
        self._check_width(new)
        w = self._stored_addresses(old, state)
        mean, covariance, new = _doubles(state.mean, state.covariance, new)
        spread, scale = _columns_of_norm_1(covariance @ w.mT)
        shared = scale.mT * (w @ spread)
        change = _pseudo_inverse(shared) @ (scale.mT * (new - w @ mean))
        return _like(state, mean + spread @ change, covariance)

    def forget(self, codes: Tensor, state: MemoryState) -> MemoryState:
        """Return the memory without codes (B, N, C); what else is stored stays, and there is room for N codes again."""
        w = self._stored_addresses(codes, state)
        mean, covariance, prior_mean = _doubles(state.mean, state.covariance, self.prior_mean)
        precision = 1 / self._prior_variance().double()[:, None]
        spread, scale = _columns_of_norm_1(covariance @ w.mT)
        shared = scale.mT * (w @ spread)
        freed = _pseudo_inverse(spread.mT @ (precision * spread))
        mean = mean - spread @ (freed @ (spread.mT @ (precision * (mean - prior_mean))))
        return _like(state, mean, covariance + spread @ (freed - _pseudo_inverse(shared)) @ spread.mT)

    def memory_kl(self, state: MemoryState) -> Tensor:
        """Return the divergence of each memory's distribution from the prior's, in nats, (B,)."""
        mean, covariance, prior_mean, variance = _doubles(
            state.mean, state.covariance, self.prior_mean, self._prior_variance()
        )
        slots, width = prior_mean.shape
        factors = _cholesky(covariance)
        log_determinant = 2 * factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        trace = (covariance.diagonal(dim1=-2, dim2=-1) / variance).sum(-1)
        distance = ((mean - prior_mean).square() / variance[:, None]).sum((-2, -1))
        kl = 0.5 * (width * (trace - slots + variance.log().sum() - log_determinant) + distance)
        return kl.to(state.mean.dtype)

    def address_kl(self, means: Tensor) -> Tensor:
        """Return the divergence from N(0, I) of addresses with these means (B, Q, K), in nats, (B, Q)."""
        logvar = self.address_logvar
        return 0.5 * (logvar.exp() + means.square() - 1 - logvar).sum(-1)

    def _stored_addresses(self, codes: Tensor, state: MemoryState) -> Tensor:
        """Return the part of addresses that codes were written at, (B, N, K): I - P U maps to the span of these."""
        covariance, w = _doubles(state.covariance, self.address(codes, state)[0])
        return w - (w @ covariance) / self._prior_variance().double()

    def _prior_variance(self) -> Tensor:
        return self.prior_logvar.clamp(-LARGEST_LOGVAR, LARGEST_LOGVAR).exp()

    def _solve(self, matrix: Tensor, right: Tensor) -> Tensor:
        """Return matrix^-1 right for symmetric positive definite matrices."""
        if self._solver == "ben_cohen":
            return ben_cohen_inverse(matrix, self._steps) @ right
        return torch.cholesky_solve(right, _cholesky(matrix))

    def _check_width(self, codes: Tensor) -> None:
        width = self.prior_mean.shape[1]
        if codes.shape[-1] != width:
            raise ValueError(f"the codes have {codes.shape[-1]} channels, but the memory has {width}; make them alike")


def ben_cohen_inverse(matrix: Tensor, steps: int) -> Tensor:
    """Return the inverse of symmetric positive definite matrices (..., n, n) by X <- X (2 I - A X).

    The iteration of Ben-Israel and Cohen (1966). It starts at I / b with b >= the largest eigenvalue, from where it
    always converges: in the direction of an eigenvalue a, the relative error is (1 - a / b) to the power 2^steps.
    """
    bound = torch.minimum(matrix.abs().sum(-1).amax(-1), matrix.square().sum((-2, -1)).sqrt())[..., None, None]
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inverse = identity / bound
    for _ in range(steps):
        inverse = 2 * inverse - inverse @ matrix @ inverse
    return inverse


def _doubles(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


def _like(state: MemoryState, mean: Tensor, covariance: Tensor) -> MemoryState:
    """Return a state in the dtype of another, its covariance symmetric to the last bit."""
    dtype = state.mean.dtype
    symmetric = 0.5 * (covariance + covariance.mT)
    return MemoryState(mean.to(dtype), symmetric.to(dtype).expand(len(mean), -1, -1))


def _cholesky(matrix: Tensor) -> Tensor:
    """Return the lower factor; without looking for errors, for that would wait for the device. They become NaN."""
    return torch.linalg.cholesky_ex(matrix)[0]


def _add_to_diagonal(matrix: Tensor, value: float) -> Tensor:
    return matrix + value * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _normal_like(tensor: Tensor, generator: Generator) -> Tensor:
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device)


def _columns_of_norm_1(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix (B, K, N) with columns of norm 1, and what they were divided by as factors (B, 1, N)."""
    factors = 1 / matrix.norm(dim=-2, keepdim=True).clamp_min(1e-12)
    return matrix * factors, factors


def _pseudo_inverse(matrix: Tensor) -> Tensor:
    """Return the pseudo-inverse of symmetric matrices; codes that are given twice, or are zero, make them singular."""
    return torch.linalg.pinv(matrix, hermitian=True, rtol=1e-9)

"""The Gaussian memory against plain references, and what it promises: recall, forgetting, edits, separate episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.func import functional_call
from torch.nn import functional as F

from configs.vision_language_memory import MemoryConfig
from models.vision_language.gaussian_memory import GaussianMemory, MemoryState, ben_cohen_inverse

K, C, NOISE = 24, 42, 0.01
KEYS = C // 2
"""The first channels of a code; a query that has only these asks for the others."""


def make(slots=K, width=C, noise=NOISE, **settings):
    torch.manual_seed(0)
    memory = GaussianMemory(slots, width, noise, **settings)
    with torch.no_grad():
        memory.prior_logvar.normal_(0, 0.3)
    return memory


def codes(*shape, seed=1, width=C):
    return torch.randn(*shape, width, generator=torch.Generator().manual_seed(seed)) / width**0.5


def asking(z):
    """Return queries with the keys of codes, and nothing in place of their values."""
    return torch.cat([z[..., : z.shape[-1] // 2], torch.zeros_like(z[..., z.shape[-1] // 2 :])], -1)


def recall(found, wanted):
    """Return the share of readings (E, D) whose nearest code, by cosine, is their own."""
    nearest = (F.normalize(found, dim=-1) @ F.normalize(wanted, dim=-1).T).argmax(-1)
    return (nearest == torch.arange(len(wanted))).double().mean().item()


def int8(mean):
    scale = mean.abs().amax(-1, keepdim=True) / 127
    return (mean / scale).round() * scale


def array(tensor):
    return tensor.detach().double().numpy()


def same(found, expected, **tolerance):
    np.testing.assert_allclose(array(found), expected, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


def same_state(a, b, **tolerance):
    same(a.mean, array(b.mean), **tolerance)
    same(a.covariance, array(b.covariance), **tolerance)


def addresses(mean, z):
    """Return the ridge solution of min |z - M' w|² / s² + |w|², as least squares over a system with K more rows."""
    mean, z = array(mean), array(z)
    system = np.vstack([mean.T / NOISE, np.eye(K)])
    return np.linalg.lstsq(system, np.vstack([z.T / NOISE, np.zeros((K, len(z)))]))[0].T


@pytest.mark.parametrize("written", [0, 5, K])
def test_addresses_are_ridge_solutions_in_the_memory_as_it_is_now(written):
    memory = make()
    state = memory.write(codes(1, written)) if written else memory.prior()
    queries = codes(1, 7, seed=2)
    mean, sample = memory.address(queries, state)
    same(mean[0], addresses(state.mean[0], queries[0]), rtol=1e-3)
    assert torch.equal(mean, sample)


@pytest.mark.parametrize("count", [1, 5, K, K + 9])
def test_a_write_is_the_posterior_in_its_other_form(count):
    """As precisions, which the memory never forms: U = (U0^-1 + W'W / s²)^-1, R = U (U0^-1 R0 + W'Z / s²)."""
    memory = make()
    z, prior = codes(1, count), memory.prior()
    w = addresses(prior.mean[0], z[0])
    precision = np.linalg.inv(array(prior.covariance[0]))
    covariance = np.linalg.inv(precision + w.T @ w / NOISE**2)
    mean = covariance @ (precision @ array(prior.mean[0]) + w.T @ array(z[0]) / NOISE**2)
    state = memory.write(z)
    same(state.covariance[0], covariance, atol=1e-4)
    same(state.mean[0], mean, rtol=1e-3, atol=1e-3)
    assert torch.equal(state.covariance, state.covariance.mT)
    assert torch.linalg.eigvalsh(state.covariance.double()).min() > 0


def test_the_mean_is_the_least_squares_solution_that_the_prior_regularises():
    memory = make()
    z, prior = codes(1, 9), memory.prior()
    w = addresses(prior.mean[0], z[0])
    root = np.diag(array(memory.prior_logvar.exp()) ** -0.5)
    system = np.vstack([w / NOISE, root])
    expected = np.linalg.lstsq(system, np.vstack([array(z[0]) / NOISE, root @ array(prior.mean[0])]))[0]
    same(memory.write(z).mean[0], expected, atol=1e-4)


def test_one_update_after_another_ends_where_one_write_does():
    memory = make()
    z, state = codes(2, K - 4), memory.prior(2)
    w, _ = memory.address(z, state)
    for e in range(z.shape[1]):
        state = memory.update(z[:, e], state, w[:, e])
    same_state(state, memory.write(z), rtol=1e-3, atol=2e-4)


def test_an_update_addresses_through_the_current_memory_as_a_write_of_one_code_does():
    memory = make()
    state = memory.write(codes(2, 6))
    z = codes(2, seed=3)
    same_state(memory.update(z, state), memory.write(z[:, None], state=state))


def test_codes_that_are_written_later_leave_earlier_ones_readable():
    memory = make()
    z = codes(2, 18)
    state = memory.write(z[:, :7])
    state = memory.write(z[:, 7:13], state=state)
    for e in range(13, 18):
        state = memory.update(z[:, e], state)
    torch.testing.assert_close(memory.read(z, state), z, rtol=0, atol=2e-3)


def test_a_mask_leaves_codes_out_whatever_they_hold():
    memory = make()
    z = codes(2, 6)
    mask = torch.tensor([[True, True, False, True, False, False], [True] * 6])
    state = memory.write(z.masked_fill(~mask[..., None], torch.nan), mask)
    same(state.mean[0], array(memory.write(z[:1, [0, 1, 3]]).mean[0]))
    same(state.covariance[1], array(memory.write(z[1:]).covariance[0]))


def test_episodes_of_a_batch_do_not_touch_each_other():
    memory = make()
    z, queries = codes(3, 8), codes(3, 5, seed=2)
    state = memory.write(z)
    together = memory.read(queries, state)
    for b in range(3):
        alone = memory.write(z[b : b + 1])
        same(state.mean[b], array(alone.mean[0]))
        same(together[b], array(memory.read(queries[b : b + 1], alone)[0]))
    other = memory.write(torch.cat([z[:2], codes(1, 8, seed=9)]))
    assert torch.equal(other.mean[:2], state.mean[:2])
    assert not torch.allclose(other.mean[2], state.mean[2])


def test_a_state_of_one_episode_serves_a_batch():
    memory = make()
    z, state = codes(3, 4), memory.write(codes(1, 5, seed=5))
    wide = MemoryState(state.mean.expand(3, -1, -1), state.covariance.expand(3, -1, -1))
    same(memory.read(z, state), array(memory.read(z, wide)))
    for change in (memory.write(z, state=state), memory.edit(z, -z, state), memory.forget(z, state)):
        assert change.mean.shape == (3, K, C)
        assert change.covariance.shape == (3, K, K)
    same_state(memory.write(z, state=state), memory.write(z, state=wide))


@pytest.mark.parametrize("count", [32, 64])
def test_values_are_recalled_from_noisy_keys_up_to_capacity_and_only_from_a_memory_that_has_them(count):
    memory = make(64, 112)
    z = codes(1, count, width=112)
    queries = asking(z + 0.5 * codes(1, count, width=112, seed=2))
    values = z[0, :, 56:]
    state = memory.write(z)
    assert recall(memory.read(queries, state)[0, :, 56:], values) >= 0.95
    assert recall(memory.read(queries, memory.prior())[0, :, 56:], values) <= 4 / count
    stored = MemoryState(int8(state.mean), state.covariance)
    assert recall(memory.read(queries, stored)[0, :, 56:], values) >= 0.95


def test_codes_themselves_are_read_exactly_and_int8_costs_little():
    memory = make(64, 112)
    z = codes(1, 48, width=112)
    state = memory.write(z)
    torch.testing.assert_close(memory.read(z, state), z, rtol=0, atol=1e-3)
    stored = memory.read(z, MemoryState(int8(state.mean), state.covariance))
    assert (stored - z).norm(dim=-1).max() < 0.03


def test_reading_without_a_generator_has_no_noise_and_with_one_is_repeatable():
    memory = make()
    state, queries = memory.write(codes(2, 5)), codes(2, 3, seed=2)
    first = memory.read(queries, state)
    torch.manual_seed(99)
    assert torch.equal(memory.read(queries, state), first)
    sampled = [memory.read(queries, state, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)]
    assert torch.equal(sampled[0], sampled[1])
    assert not torch.allclose(sampled[0], sampled[2])
    assert not torch.allclose(sampled[0], first)


def test_samples_have_the_variances_of_addresses_and_of_observations():
    memory = make(noise=0.1)
    with torch.no_grad():
        memory.address_logvar.copy_(torch.linspace(-4, -1, K))
    state, generator = memory.write(codes(1, 5)), torch.Generator().manual_seed(3)
    queries = codes(1, 1, seed=2).expand(1, 20000, C)
    mean, samples = memory.address(queries, state, generator)
    same(samples.var(1)[0], array(memory.address_logvar.exp()), rtol=0.05)
    same((samples - mean).mean(1)[0], np.zeros(K), atol=0.02)
    read = memory.read(queries, state, generator)[0]
    expected = memory.address_logvar.exp() @ state.mean[0].square() + 0.1**2
    same(read.var(0), array(expected), rtol=0.05)


def test_the_memory_divergence_is_that_of_matrix_normals():
    memory = make(4, 3)
    state = memory.write(codes(2, 3, width=3))
    prior = memory.prior()

    def flat(mean, covariance):
        return MultivariateNormal(mean.double().flatten(), torch.kron(covariance.double(), torch.eye(3).double()))

    expected = [
        kl_divergence(flat(mean, covariance), flat(prior.mean[0], prior.covariance[0])).item()
        for mean, covariance in zip(state.mean, state.covariance, strict=True)
    ]
    same(memory.memory_kl(state), expected, rtol=1e-4)
    same(memory.memory_kl(memory.prior(2)), [0, 0], atol=1e-4)


def test_the_address_divergence_is_that_of_normals():
    memory = make()
    means = torch.randn(2, 3, K)
    posterior = Normal(means, (0.5 * memory.address_logvar).exp().expand_as(means))
    expected = kl_divergence(posterior, Normal(torch.zeros(K), torch.ones(K))).sum(-1)
    same(memory.address_kl(means), array(expected))


@pytest.mark.parametrize(("count", "tolerance"), [(4, 1e-5), (48, 1e-3), (64, 0.1)])
def test_ben_cohen_reads_what_the_exact_solver_does(count, tolerance):
    """Within tolerance x the norm of a code; most at capacity, where 15 steps leave the weakest directions out."""
    exact, iterated = make(64, 112), make(64, 112, solver="ben_cohen")
    z = codes(1, count, width=112)
    readings = [memory.read(z, memory.write(z)) for memory in (exact, iterated)]
    assert (readings[0] - readings[1]).norm(dim=-1).max() < tolerance
    assert torch.linalg.eigvalsh(iterated.write(z).covariance.double()).min() > 0


def test_ben_cohen_converges_from_its_start_for_any_scale():
    for scale in (1e-6, 1.0, 1e6):
        root = torch.randn(3, 6, 9, dtype=torch.float64)
        matrix = scale * (root @ root.mT)
        same(ben_cohen_inverse(matrix, 30) @ matrix, np.broadcast_to(np.eye(6), (3, 6, 6)), atol=1e-8)


@pytest.mark.parametrize("count", [3, 14])
def test_forgetting_leaves_the_memory_as_if_the_codes_had_never_been_written(count):
    memory = make()
    z = codes(2, count)
    w, _ = memory.address(z, memory.prior(2))
    forgotten = memory.forget(z[:, :2], memory.write(z))
    never = memory.write(z[:, 2:], addresses=w[:, 2:])
    same_state(forgotten, never, rtol=0.02, atol=0.02)
    torch.testing.assert_close(memory.read(z[:, 2:], forgotten), z[:, 2:], rtol=0, atol=2e-3)


def test_what_is_forgotten_is_no_longer_recalled_and_its_room_is_free():
    memory = make(64, 112)
    z = codes(1, 64, width=112)
    values = z[0, :, 56:]
    state = memory.forget(z[:, :16], memory.write(z))
    found = memory.read(asking(z), state)[0, :, 56:]
    nearest = (F.normalize(found, dim=-1) @ F.normalize(values, dim=-1).T).argmax(-1)
    right = nearest == torch.arange(64)
    assert right[:16].double().mean() <= 0.2
    assert right[16:].double().mean() >= 0.95
    later = codes(1, 16, width=112, seed=8)
    again = memory.write(later, state=state)
    assert recall(memory.read(asking(later), again)[0, :, 56:], later[0, :, 56:]) >= 0.9


def test_forgetting_twice_at_once_or_from_an_empty_memory_does_no_harm():
    memory = make()
    z = codes(1, 6)
    state = memory.write(z)
    twice = torch.cat([z[:, :1], z[:, :1]], 1)
    same_state(memory.forget(twice, state), memory.forget(z[:, :1], state), atol=1e-3)
    padded = torch.cat([z[:, :1], torch.zeros(1, 1, C)], 1)
    same_state(memory.forget(padded, state), memory.forget(z[:, :1], state), atol=1e-3)
    same_state(memory.forget(z, memory.prior()), memory.prior())


@pytest.mark.parametrize("count", [3, 14])
def test_an_edit_leaves_the_memory_as_if_the_new_code_had_been_written_in_the_old_ones_place(count):
    memory = make()
    z, new = codes(2, count), codes(2, 2, seed=4)
    w, _ = memory.address(z, memory.prior(2))
    edited = memory.edit(z[:, :2], new, memory.write(z))
    instead = memory.write(torch.cat([new, z[:, 2:]], 1), addresses=w)
    same_state(edited, instead, rtol=0.02, atol=5e-3)


def test_an_edit_is_read_and_is_local():
    memory = make(64, 112)
    z = codes(1, 48, width=112)
    new = torch.cat([z[:, :4, :56], codes(1, 4, width=112, seed=4)[..., 56:]], -1)
    state = memory.write(z)
    edited = memory.edit(z[:, :4], new, state)
    torch.testing.assert_close(memory.read(new, edited), new, rtol=0, atol=2e-3)
    others = memory.read(z[:, 4:], edited) - memory.read(z[:, 4:], state)
    assert others.norm(dim=-1).max() < 2e-3
    found = memory.read(asking(z[:, :4]), edited)[0, :, 56:]
    assert (F.cosine_similarity(found, new[0, :, 56:]) > F.cosine_similarity(found, z[0, :4, 56:]) + 0.2).all()


def test_gradients_of_writing_and_reading_are_right():
    torch.manual_seed(0)
    memory = GaussianMemory(4, 6, 0.3).double()
    z, queries = codes(2, 3, width=6).double(), codes(2, 2, width=6, seed=2).double()

    losses = Losses(memory, queries)

    def loss(mean, logvar, z):
        return functional_call(losses, {"memory.slots.weight": mean, "memory.prior_logvar": logvar}, z)

    leaves = [memory.slots.weight.detach().clone(), memory.prior_logvar.detach().clone(), z]
    assert torch.autograd.gradcheck(loss, [leaf.requires_grad_() for leaf in leaves])


class Losses(torch.nn.Module):
    """Everything that a training takes gradients of."""

    def __init__(self, memory, queries):
        super().__init__()
        self.memory, self.queries = memory, queries

    def forward(self, z):
        state = self.memory.update(z[:, 0], self.memory.write(z[:, 1:]))
        means, _ = self.memory.address(self.queries, state)
        return self.memory.read(self.queries, state), self.memory.memory_kl(state), self.memory.address_kl(means)


@pytest.mark.parametrize("solver", ["exact", "ben_cohen"])
@pytest.mark.parametrize("count", [1, K // 2, K])
def test_every_parameter_and_the_codes_get_finite_gradients_however_many_codes(count, solver):
    memory = make(solver=solver)
    z = codes(2, count).requires_grad_()
    state = memory.write(z)
    generator = torch.Generator().manual_seed(0)
    loss = (memory.read(z.detach(), state, generator) - z).square().sum() + 1e-4 * memory.memory_kl(state).sum()
    loss.backward()
    for gradient in [z.grad, *(parameter.grad for parameter in memory.parameters())]:
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("logvar", [-50.0, 50.0])
def test_a_prior_that_ran_away_still_gives_finite_memories(logvar):
    memory = make()
    with torch.no_grad():
        memory.prior_logvar[::2] = logvar
    z = codes(1, K)
    state = memory.write(z)
    assert memory.read(z, state).isfinite().all()
    assert memory.memory_kl(state).isfinite().all()


def test_autocast_changes_nothing_and_readings_have_the_dtype_of_queries():
    memory = make()
    z = codes(2, 9)
    plain = memory.write(z)
    with torch.autocast("cpu", torch.bfloat16):
        state = memory.write(z)
        reading = memory.read(z.bfloat16(), state)
    assert torch.equal(state.mean, plain.mean)
    assert state.covariance.dtype == torch.float32
    assert torch.equal(reading, memory.read(z.bfloat16(), plain))
    assert reading.dtype == torch.bfloat16
    assert memory.bfloat16().prior().covariance.dtype == torch.float32


def test_a_state_survives_a_file():
    memory = make()
    state = memory.write(codes(2, 5))
    kept = MemoryState.from_tensors(load(save(state.detach().to("cpu").tensors())))
    assert torch.equal(kept.mean, state.mean)
    assert torch.equal(kept.covariance, state.covariance)
    assert torch.equal(MemoryState.from_tensors(load(save(memory.prior(3).tensors()))).mean, memory.prior(3).mean)


def test_a_state_that_is_not_whole_is_refused():
    tensors = make().prior().tensors()
    with pytest.raises(ValueError, match="lacks covariance"):
        MemoryState.from_tensors({"mean": tensors["mean"]})
    with pytest.raises(ValueError, match=r"a covariance of \(1, 23, 24\)"):
        MemoryState.from_tensors(tensors | {"covariance": tensors["covariance"][:, 1:]})


def test_bad_settings_and_codes_are_refused():
    with pytest.raises(ValueError, match="choose one of exact, ben_cohen"):
        make(solver="pinv")
    with pytest.raises(ValueError, match="it must be positive"):
        make(noise=0)
    with pytest.raises(ValueError, match="7 channels, but the memory has 42"):
        make().write(torch.zeros(1, 2, 7))


def test_the_configuration_makes_a_memory():
    config = MemoryConfig(slots=8)
    memory = GaussianMemory(config.slots, 16, config.noise, config.solver, config.ben_cohen_steps)
    assert memory.prior(2).mean.shape == (2, 8, 16)

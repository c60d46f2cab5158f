"""What the episodic memory recalls, forgets and keeps apart, at 512 slots of 896 channels.

Nothing is trained but ScopeNet: the prior is random (mean N(0, 1/C), variance 1), codes are random with norms near 1.
The first half of a code is its key, the second its value. E codes are written at once; then each is asked for with its
key alone, blurred by noise of half a code's deviation in every channel, and zeros in place of the value. A value is
recalled when, of all that were written, its own is the nearest to what is read, by cosine. A memory that holds
other codes, and the query itself, recall as many as guessing does.

Beside it stands the recall of whole codes from whole blurred codes. It says little: the query alone, or a memory that
holds nothing of the episode, pass it too.

A lookup keeps every code as it is, and gives the value of the nearest key by cosine; it grows with the codes, which
the memory does not. The notes have both where the memory does not recall everything: with more codes than slots, more
noise, or codes that share nine tenths of their variance.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from models.vision_language.gaussian_memory import GaussianMemory, MemoryState
from models.vision_language.scope import ScopeNet

AIMS = {256: ">= 0.99", 512: ">= 0.95"}
QUERY_NOISE = 0.5
EPISODES = 3
SCOPE_STEPS = 300

Row = dict[str, Any]


def run(bench: Bench) -> list[Figure]:
    """Measure half full and full memories, and what lies between and beyond."""
    slots, width, episodes = (64, 112, 2) if bench.quick else (512, 896, EPISODES)
    figures = []
    with torch.no_grad():
        curve = _curve(bench, slots, width)
        for count, aim in AIMS.items():
            written = count * slots // 512
            bench.say(f"{episodes} episodes of {written} codes")
            written_episodes = [_Episode(slots, width, written, seed) for seed in range(episodes)]
            rows = [episode.measure(slots // 16) for episode in written_episodes]
            other_ways = written_episodes[0].other_ways()
            bench.say(f"training ScopeNet on episodes of {written} codes")
            scope = _scope(slots, width, written, 30 if bench.quick else SCOPE_STEPS)
            figures.append(_figure(bench, count, aim, rows, {"scope": scope, "curve": curve, **other_ways}))
    return figures


class _Episode:
    """A memory with a random prior, the codes that were written, and noise for queries."""

    def __init__(
        self, slots: int, width: int, count: int, seed: int, noise: float = QUERY_NOISE, shared: float = 0.0
    ) -> None:
        torch.manual_seed(seed)
        self.memory, self._slots, self._half = GaussianMemory(slots, width), slots, width // 2
        common = torch.randn(1, 1, width)
        self.codes = (shared**0.5 * common + (1 - shared) ** 0.5 * torch.randn(1, count, width)) / width**0.5
        self.whole = self.codes + noise * torch.randn(1, count, width) / width**0.5
        self.keys = self.asking(self.whole)
        self.state = self.memory.write(self.codes)

    def asking(self, codes: Tensor) -> Tensor:
        """Return the keys of codes, with zeros for their values."""
        return torch.cat([codes[..., : self._half], torch.zeros_like(codes[..., self._half :])], -1)

    def recalled(self, found: Tensor, *, values: bool = True) -> Tensor:
        """Return which of the readings (1, E, C) are nearest to their own code, (E,)."""
        begin = self._half if values else 0
        found, wanted = (F.normalize(x[0, :, begin:], dim=-1) for x in (found, self.codes))
        return (found @ wanted.T).argmax(-1) == torch.arange(len(wanted))

    def recall(self, state: MemoryState) -> float:
        """Return the share of values that a memory recalls from blurred keys."""
        return _share(self.recalled(self.memory.read(self.keys, state)))

    def looked_up(self) -> float:
        """Return the share of values that a lookup recalls from blurred keys."""
        return nearest_key(*(x[0, :, : self._half] for x in (self.keys, self.codes)))

    def measure(self, touched: int) -> Row:
        """Return everything that is measured of one episode."""
        memory, state = self.memory, self.state
        random = GaussianMemory(self._slots, self.codes.shape[-1]).prior()
        noise = torch.randn_like(self.codes) / self.codes.shape[-1] ** 0.5
        elsewhere = memory.write(noise)
        stored = MemoryState(_int8(state.mean), state.covariance)
        whole = {"memory": memory.read(self.whole, state), "random": memory.read(self.whole, random)}
        return {
            "recall": self.recall(state),
            "controls": {
                "no memory": _share(self.recalled(self.keys)),
                "random memory": self.recall(random),
                "memory of another episode": self.recall(elsewhere),
                "lookup": self.looked_up(),
                "chance": 1 / self.codes.shape[1],
            },
            "whole_codes": {
                **{name: _share(self.recalled(found, values=False)) for name, found in whole.items()},
                "no memory": _share(self.recalled(self.whole, values=False)),
            },
            "cosine_of_reading": F.cosine_similarity(memory.read(self.codes, state), self.codes, dim=-1).mean().item(),
            "int8": {"recall": self.recall(stored), "largest_change": self._change(stored, 0)},
            "forgetting": self._forgetting(touched),
            "edits": self._edits(touched),
            "cpu_seconds": {
                "write": _cpu_seconds(lambda: memory.write(self.codes)),
                "read": _cpu_seconds(lambda: memory.read(self.codes, state)),
            },
        }

    def other_ways(self) -> Row:
        """Return how writing one by one, and with the other solver, compare with the write at once."""
        return {"sequential": self._sequential(), "ben_cohen": self._ben_cohen()}

    def _forgetting(self, touched: int) -> Row:
        found = self.memory.forget(self.codes[:, :touched], self.state)
        before = self.recalled(self.memory.read(self.keys, self.state))
        after = self.recalled(self.memory.read(self.keys, found))
        return {
            "codes": touched,
            "recall_of_forgotten": _share(after[:touched]),
            "recall_of_others": _share(after[touched:]),
            "recall_of_others_before": _share(before[touched:]),
            "largest_change_of_others": self._change(found, touched),
        }

    def _edits(self, touched: int) -> Row:
        """Give codes other values, and ask by their blurred keys."""
        old = self.codes[:, :touched]
        new = old.clone()
        new[..., self._half :] = torch.randn_like(new[..., self._half :]) / new.shape[-1] ** 0.5
        found = self.memory.edit(old, new, self.state)
        read = self.memory.read(self.keys, found)
        values = F.normalize(torch.cat([new, self.codes], 1)[0, :, self._half :], dim=-1)
        nearest = (F.normalize(read[0, :touched, self._half :], dim=-1) @ values.T).argmax(-1)
        return {
            "codes": touched,
            "recall_of_new_values": _share(nearest == torch.arange(touched)),
            "recall_of_old_values": _share(nearest == torch.arange(touched) + touched),
            "recall_of_others": _share(self.recalled(read)[touched:]),
            "largest_change_of_others": self._change(found, touched),
        }

    def _change(self, state: MemoryState, touched: int) -> float:
        """Return by how much the reading of an untouched code changed at most, as a share of a code's norm."""
        untouched = self.codes[:, touched:]
        change = self.memory.read(untouched, state) - self.memory.read(untouched, self.state)
        return change.norm(dim=-1).max().item()

    def _sequential(self) -> Row:
        """Write one code after another, at the addresses of the write at once, and at those of the current memory."""
        addresses, _ = self.memory.address(self.codes, self.memory.prior())
        same = own = self.memory.prior()
        for e in range(self.codes.shape[1]):
            same = self.memory.update(self.codes[:, e], same, addresses[:, e])
            own = self.memory.update(self.codes[:, e], own)
        difference = (same.mean - self.state.mean).norm() / self.state.mean.norm()
        return {
            "difference_of_means_at_the_same_addresses": difference.item(),
            "largest_change_of_readings": self._change(same, 0),
            "recall_at_current_addresses": self.recall(own),
        }

    def _ben_cohen(self) -> Row:
        slots, width = self.memory.prior_mean.shape
        other = GaussianMemory(slots, width, solver="ben_cohen")
        other.load_state_dict(self.memory.state_dict())
        state = other.write(self.codes)
        change = other.read(self.codes, state) - self.memory.read(self.codes, self.state)
        return {
            "recall": _share(self.recalled(other.read(self.keys, state))),
            "largest_change": change.norm(dim=-1).max().item(),
        }


def nearest_key(asked: Tensor, kept: Tensor) -> float:
    """Return the share of keys (E, C) that are nearest, by cosine, to the one that is kept in the same place."""
    near = F.normalize(asked, dim=-1) @ F.normalize(kept, dim=-1).T
    return _share(near.argmax(-1) == torch.arange(len(kept)))


def _curve(bench: Bench, slots: int, width: int) -> list[Row]:
    """Return the recall of values by share of capacity, noise of queries, and what all codes have in common."""
    bench.say("recall by load, noise and likeness")
    loads = [(load, QUERY_NOISE, 0.0) for load in (0.5, 1.0, 2.0, 4.0, 8.0)]
    harder = [(load, noise, shared) for load in (0.5, 1.0) for noise, shared in ((2.0, 0.0), (4.0, 0.0), (0.5, 0.9))]
    return [
        {"load": load, "codes": round(load * slots), "query_noise": noise, "shared_variance": shared,
         "recall": rounded(episode.recall(episode.state)), "lookup": rounded(episode.looked_up())}
        for load, noise, shared in loads + harder
        for episode in [_Episode(slots, width, round(load * slots), 100, noise, shared)]
    ]  # fmt: skip


def _scope(slots: int, width: int, count: int, steps: int) -> Row:
    """Return AUROC on two new episodes of a ScopeNet that was trained on others, and of one that sees no reading."""
    training = [_scope_queries(slots, width, count, seed) for seed in (10, 11, 12, 13)]
    held_out = [_scope_queries(slots, width, count, seed) for seed in (20, 21)]
    nets = {"auroc": False, "auroc_without_reading": True}
    return {"steps": steps, **{name: _train_scope(training, held_out, steps, blind) for name, blind in nets.items()}}


def _scope_queries(slots: int, width: int, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return blurred keys of codes that were written and of others (1, 2 E, C), their readings, and which they are."""
    episode = _Episode(slots, width, count, seed)
    others = episode.asking((1 + QUERY_NOISE**2) ** 0.5 * torch.randn(1, count, width) / width**0.5)
    queries = torch.cat([episode.keys, others], 1)
    wanted = torch.cat([torch.ones(1, count), torch.zeros(1, count)], 1)
    return queries, episode.memory.read(queries, episode.state), wanted


def _train_scope(
    training: list[tuple[Tensor, Tensor, Tensor]],
    held_out: list[tuple[Tensor, Tensor, Tensor]],
    steps: int,
    blind: bool,
) -> float:
    torch.manual_seed(0)
    queries, readings, wanted = (torch.cat(parts, 1)[0] for parts in zip(*training, strict=True))
    net = ScopeNet(queries.shape[-1])
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3)

    def logits(queries: Tensor, readings: Tensor) -> Tensor:
        return net(queries, queries if blind else readings)

    for _ in range(steps):
        chosen = torch.randint(len(wanted), (256,))
        with torch.enable_grad():
            loss = F.binary_cross_entropy_with_logits(logits(queries[chosen], readings[chosen]), wanted[chosen])
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
    return statistics.mean(_auroc(logits(queries, readings), wanted) for queries, readings, wanted in held_out)


def _auroc(logits: Tensor, wanted: Tensor) -> float:
    positive = wanted.flatten().bool().numpy()
    count = positive.sum()
    ranks = rankdata(logits.flatten().numpy())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum()))


def _int8(mean: Tensor) -> Tensor:
    """Return what is left of a mean (B, K, C) that is kept in 8 bits with a scale per slot."""
    scale = mean.abs().amax(-1, keepdim=True) / 127
    return (mean / scale).round() * scale


def _share(right: Tensor) -> float:
    return right.double().mean().item()


def _cpu_seconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(5):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def _figure(bench: Bench, count: int, aim: str, rows: list[Row], more: Row) -> Figure:
    mean = _mean(rows)
    controls, whole, forgetting, edits = (mean[name] for name in ("controls", "whole_codes", "forgetting", "edits"))
    cost = max(row["recall"] - row["int8"]["recall"] for row in rows)
    return bench.figure(
        f"memory_recall_{count}",
        what=f"Values recalled from blurred keys, {count} codes in 512 slots",
        value=rounded(mean["recall"], 4),
        unit="of them",
        aim=aim,
        peer="a random memory",
        peer_value=rounded(controls["random memory"]),
        peer_unit="of them",
        notes=(
            f"Of {len(rows)} episodes the worst recalls {min(row['recall'] for row in rows):.3f}; without memory "
            f"{controls['no memory']:.4f}, from another episode's memory {controls['memory of another episode']:.4f}, "
            f"chance {controls['chance']:.4f}. Whole codes: {whole['memory']:.3f}, without memory "
            f"{whole['no memory']:.3f}.",
            f"A lookup of the nearest key recalls {controls['lookup']:.3f}.{_harder(more['curve'], count / 512)}",
            f"Kept in int8 {mean['int8']['recall']:.4f}, at worst {100 * cost:.2f} points less.",
            f"{forgetting['codes']:.0f} codes forgotten: {forgetting['recall_of_forgotten']:.4f} of them and "
            f"{forgetting['recall_of_others']:.4f} of the others are recalled "
            f"({forgetting['recall_of_others_before']:.4f} before).",
            f"{edits['codes']:.0f} values edited: {edits['recall_of_new_values']:.3f} of the new and "
            f"{edits['recall_of_old_values']:.3f} of the old are recalled; the reading of others changes by "
            f"{edits['largest_change_of_others']:.1e} of a code at most.",
            f"ScopeNet's AUROC is {more['scope']['auroc']:.4f}, without the reading "
            f"{more['scope']['auroc_without_reading']:.3f}.",
            f"Written one by one at the same addresses, readings differ by "
            f"{more['sequential']['largest_change_of_readings']:.0e} from those at once; with Ben-Cohen by "
            f"{more['ben_cohen']['largest_change']:.0e} of a code at most.",
            f"A write takes {mean['cpu_seconds']['write']:.2f} s of CPU time, a read of all "
            f"{mean['cpu_seconds']['read']:.2f} s.",
        ),
        detail={"query_noise": QUERY_NOISE, "mean": mean, "episodes": rows, **more, "threads": torch.get_num_threads()},
    )


def _harder(curve: list[Row], load: float) -> str:
    """Tell where a memory with this load, or a full one with more, does not recall everything."""
    rows = [row for row in curve if min(row["load"], 1.0) == load and row["recall"] < 1]
    told = [
        f"{row['codes']} codes, noise {row['query_noise']:g}, shared variance {row['shared_variance']:g}: "
        f"{row['recall']:.3f} (lookup {row['lookup']:.3f})"
        for row in rows
    ]
    return f" Harder: {'; '.join(told)}." if told else ""


def _mean(rows: list[Row]) -> Row:
    """Return means over rows of numbers, which may lie in nested rows."""
    return {
        name: _mean([row[name] for row in rows]) if isinstance(value, dict) else statistics.mean(r[name] for r in rows)
        for name, value in rows[0].items()
    }

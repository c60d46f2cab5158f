"""How well a narrator tells the weather, and whether it looks: likelihood and texts with true and other windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from configs.weather_lm import NarrationEvaluation
from tasks.captions.checks import ValueCounts, event_f1, region_f1, value_accuracy
from tasks.captions.regions import Gazetteer
from tasks.intervals import Sums, paired_bootstrap
from tasks.narration.dataset import ControlledPairs, NarrationPairs, collate, collate_controlled
from tasks.narration.objective import controlled_nll
from tasks.narration.released import NarratorRelease
from tasks.narration.truth import FieldTruth
from tasks.text.metrics import text_scores

BATCH = 16
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Likelihoods:
    """Nats of the captions of some pairs under three conditions."""

    nats: Floats
    """(3, pairs): with the true window, with one of another date, without vision."""
    tokens: Floats
    """(pairs,)"""
    dates: list[date]

    def by_day(self, condition: int) -> Sums:
        """Return sums over whole days: captions of one day are not independent."""
        return _by_day(self.nats[condition], self.tokens, self.dates)


def _by_day(sums: Floats, weights: Floats, dates: Sequence[date]) -> Sums:
    days = sorted(set(dates))
    at = np.array([days.index(day) for day in dates])
    of_days = [np.bincount(at, values, len(days)).astype(np.float64) for values in (sums, weights)]
    return Sums(*of_days)


@torch.no_grad()
def likelihoods(release: NarratorRelease, pairs: NarrationPairs, config: NarrationEvaluation) -> Likelihoods:
    """Return the likelihood of up to `samples` captions, evenly spaced."""
    source = ControlledPairs(pairs, config.samples, config.seed)
    parts, tokens = [], []
    for start in range(0, len(source), BATCH):
        chunk = [source.sample(k, 0) for k in range(start, min(start + BATCH, len(source)))]
        own, other = collate_controlled(chunk)
        parts.append(torch.stack(controlled_nll(release.network, own, other)))
        tokens.append(own.learned.sum(1))
    dates = [pairs.pairs[k].date for k in source.chosen]
    return Likelihoods(torch.cat(parts, 1).double().numpy(), torch.cat(tokens).double().numpy(), dates)


def likelihood_table(found: Likelihoods, config: NarrationEvaluation) -> dict[str, Any]:
    """Return nats per token under each condition, and how much more the controls need, with 95 % intervals."""
    count = found.tokens.sum()
    true, shuffled, blind = (found.by_day(k) for k in range(3))
    nats = dict(zip(("true", "shuffled", "blind"), (found.nats.sum(1) / count).tolist(), strict=True))
    return {
        "captions": len(found.tokens),
        "days": len(true.sums),
        "tokens": int(count),
        "nats_per_token": nats,
        "perplexity": float(np.exp(nats["true"])),
        "gap_to_shuffled": paired_bootstrap(shuffled, true, config.resamples, config.seed).json(),
        "gap_to_blind": paired_bootstrap(blind, true, config.resamples, config.seed).json(),
    }


@dataclass(frozen=True)
class Told:
    """What was written about a window, and what is so."""

    index: int
    """Of the pair."""
    window: int
    """The window that was looked at."""
    text: str


def write_texts(
    release: NarratorRelease, pairs: NarrationPairs, chosen: Sequence[tuple[int, int]], config: NarrationEvaluation
) -> list[Told]:
    """Write a text for each (pair, window): the pair's prompt, with whichever window."""
    generator = torch.Generator().manual_seed(config.seed)
    told = []
    for start in range(0, len(chosen), BATCH):
        chunk = chosen[start : start + BATCH]
        batch = collate([pairs.told(index, "", window) for index, window in chunk])
        with torch.no_grad():
            prompts = release.network.soft_prompts(batch)
        ids = release.network.write(
            batch,
            prompts,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            end=release.tokens.end,
            generator=generator,
        )
        texts = map(release.tokens.text, ids)
        told += [Told(index, window, text) for (index, window), text in zip(chunk, texts, strict=True)]
    return told


def text_table(
    pairs: NarrationPairs, true: Sequence[Told], shuffled: Sequence[Told], config: NarrationEvaluation
) -> dict[str, Any]:
    """Return scores of texts against captions and against the fields; `true` and `shuffled` are of the same pairs."""
    gazetteer, truth = Gazetteer.world(), FieldTruth(pairs.windows.store)
    table: dict[str, Any] = {"texts": len(true)}
    counts = {}
    for name, told in (("true", true), ("shuffled", shuffled)):
        scored = [(t.text, list(pairs.pairs[t.index].texts)) for t in told]
        scores = text_scores(scored)
        counts[name] = [value_accuracy(t.text, _truth(truth, pairs, t.index)) for t in told]
        total = sum(counts[name], ValueCounts())
        table[name] = {
            **{metric: score.corpus for metric, score in scores.items()},
            "event_f1": event_f1(scored).f1,
            "region_f1": region_f1(scored, gazetteer).f1,
            "values_stated": total.stated,
            "values_checked": sum(total.checked.values()),
            "value_accuracy": total.accuracy(),
            **{f"mae_{kind}": total.mean_absolute_error(kind) for kind in sorted(total.checked)},
        }
    table["signatures"] = {metric: score.signature for metric, score in scores.items()}
    dates = [pairs.pairs[t.index].date for t in true]
    table["value_accuracy_gain"] = _gain(counts["true"], counts["shuffled"], dates, config)
    return table


def _truth(truth: FieldTruth, pairs: NarrationPairs, index: int) -> Any:
    pair = pairs.pairs[index]
    return truth.day(pair.date, pair.box)


def _gain(
    true: Sequence[ValueCounts], shuffled: Sequence[ValueCounts], dates: Sequence[date], config: NarrationEvaluation
) -> dict[str, float | None] | None:
    """Return by how much more of the stated values is right with the true window; None where none can be checked."""
    sums = []
    for counts in (true, shuffled):
        within = np.array([sum(c.within.values()) for c in counts], np.float64)
        checked = np.array([sum(c.checked.values()) for c in counts], np.float64)
        if not checked.any():
            return None
        sums.append(_by_day(within, checked, dates))
    return paired_bootstrap(sums[0], sums[1], config.resamples, config.seed).json()


def evaluate_narrator(
    release: NarratorRelease, pairs: NarrationPairs, config: NarrationEvaluation
) -> tuple[dict[str, Any], list[Told]]:
    """Return all measures of a narrator, as JSON, and the texts that it wrote with the true windows."""
    table = likelihood_table(likelihoods(release, pairs, config), config)
    source = ControlledPairs(pairs, config.texts, config.seed)
    own = [(k, pairs.pairs[k].window) for k in source.chosen]
    other = [(k, pairs.pairs[source.others[k]].window) for k in source.chosen]
    true = write_texts(release, pairs, own, config)
    table |= text_table(pairs, true, write_texts(release, pairs, other, config), config)
    return table, true

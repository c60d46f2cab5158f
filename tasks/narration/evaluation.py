"""How well a narrator tells the weather, and whether it looks: likelihood and texts with true and other windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from configs.weather_lm import NarrationEvaluation, NarratorRecipe
from tasks.captions.checks import ValueCounts, event_f1, region_f1, value_accuracy
from tasks.captions.regions import Gazetteer
from tasks.intervals import Sums, paired_bootstrap, spells
from tasks.narration.dataset import ControlledPairs, NarrationPairs, collate, collate_controlled
from tasks.narration.objective import controlled_nll
from tasks.narration.released import NarratorRelease
from tasks.narration.truth import FieldTruth
from tasks.text.metrics import text_scores

BATCH = 16
CONTROLS = ("climate", "shuffled", "blind")
"""A narrator trained without fields, the fields of another date, and no soft prompts."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Likelihoods:
    """Nats of the captions of some pairs under three conditions."""

    nats: Floats
    """(3, pairs): with the true window, with the weather of another date, without soft prompts."""
    tokens: Floats
    """(pairs,)"""
    dates: list[date]

    def by_spell(self, condition: int) -> Sums:
        """Return sums over whole spells of weather: captions of one spell are not independent."""
        return _by_spell(self.nats[condition], self.tokens, self.dates)


def _by_spell(sums: Floats, weights: Floats, dates: Sequence[date]) -> Sums:
    at = spells(np.array(dates, "datetime64[D]"))
    of_spells = [np.bincount(at, values).astype(np.float64) for values in (sums, weights)]
    return Sums(*of_spells)


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
    true, shuffled, blind = (found.by_spell(k) for k in range(3))
    nats = dict(zip(("true", "shuffled", "blind"), (found.nats.sum(1) / count).tolist(), strict=True))
    return {
        "captions": len(found.tokens),
        "days": len(set(found.dates)),
        "spells": len(true.sums),
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
    weather: int
    """The window whose fields were looked at."""
    text: str


def write_texts(
    release: NarratorRelease, pairs: NarrationPairs, chosen: Sequence[tuple[int, int]], config: NarrationEvaluation
) -> list[Told]:
    """Write a text for each (pair, window): the pair's prompt, place and time, with the fields of the window."""
    generator = torch.Generator().manual_seed(config.seed)
    told = []
    for start in range(0, len(chosen), BATCH):
        chunk = chosen[start : start + BATCH]
        batch = collate([pairs.told(index, "", weather) for index, weather in chunk])
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
        told += [Told(index, weather, text) for (index, weather), text in zip(chunk, texts, strict=True)]
    return told


@dataclass(frozen=True)
class Values:
    """The numbers in some texts, compared with the fields."""

    counts: list[ValueCounts]
    dates: list[date]

    def gain_over(self, others: Sequence[ValueCounts], config: NarrationEvaluation) -> dict[str, float | None] | None:
        """Return by how much more of the stated values is right than in others; None where none can be checked."""
        sums = []
        for counts in (self.counts, others):
            within = np.array([sum(c.within.values()) for c in counts], np.float64)
            checked = np.array([sum(c.checked.values()) for c in counts], np.float64)
            if not checked.any():
                return None
            sums.append(_by_spell(within, checked, self.dates))
        return paired_bootstrap(sums[0], sums[1], config.resamples, config.seed).json()


def text_table(
    pairs: NarrationPairs, true: Sequence[Told], shuffled: Sequence[Told], config: NarrationEvaluation
) -> tuple[dict[str, Any], Values]:
    """Return scores of texts against captions and against the fields, and the values of `true`.

    `true` and `shuffled` are of the same pairs.
    """
    gazetteer, truth = Gazetteer.world(), FieldTruth(pairs.windows.store)
    captions = [value_accuracy(pairs.pairs[t.index].texts[0], _truth(truth, pairs, t.index)) for t in true]
    table: dict[str, Any] = {"texts": len(true), "values_in_captions": sum(captions, ValueCounts()).stated}
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
            "value_accuracy_of": {kind: total.accuracy(kind) for kind in sorted(total.checked)},
            **{f"mae_{kind}": total.mean_absolute_error(kind) for kind in sorted(total.checked)},
        }
    table["signatures"] = {metric: score.signature for metric, score in scores.items()}
    values = Values(counts["true"], [pairs.pairs[t.index].date for t in true])
    table["value_accuracy_gain"] = values.gain_over(counts["shuffled"], config)
    return table, values


def _truth(truth: FieldTruth, pairs: NarrationPairs, index: int) -> Any:
    pair = pairs.pairs[index]
    return truth.day(pair.date, pair.box)


@dataclass(frozen=True)
class Judged:
    """A narrator's scores, and what it takes to set it beside others."""

    recipe: NarratorRecipe
    table: dict[str, Any]
    """JSON."""
    likelihoods: Likelihoods
    values: Values


def evaluate_narrator(
    release: NarratorRelease, pairs: NarrationPairs, config: NarrationEvaluation
) -> tuple[Judged, list[Told]]:
    """Return the scores of a narrator, and the texts that it wrote with the true windows."""
    found = likelihoods(release, pairs, config)
    source = ControlledPairs(pairs, config.texts, config.seed)
    own = [(k, pairs.pairs[k].window) for k in source.chosen]
    true = write_texts(release, pairs, own, config)
    shuffled = write_texts(release, pairs, list(zip(source.chosen, source.others, strict=True)), config)
    table, values = text_table(pairs, true, shuffled, config)
    return Judged(release.recipe, likelihood_table(found, config) | table, found, values), true


def compare(judged: Mapping[str, Judged], config: NarrationEvaluation) -> dict[str, dict[str, Any]]:
    """Return all tables, each with its gaps to others.

    `gain_over_first`, in nats, to the first narrator. `gap_to_climate` and `value_accuracy_gain_over_climate`, to one
    of the same language model that was trained without fields and so knows places and seasons. `gap`, the smallest of
    the gaps to a control, for a wrong window may mislead more than none.
    """
    first = next(iter(judged))
    climates: dict[str, Judged] = {}
    for one in judged.values():
        if not one.recipe.vision:
            climates.setdefault(one.recipe.language, one)
    tables = {}
    for name, one in judged.items():
        table = dict(one.table)
        table["gain_over_first"] = None if name == first else _gap(one, judged[first], config)
        climate = climates.get(one.recipe.language, one)
        table["gap_to_climate"] = None if climate is one else _gap(one, climate, config)
        more = None if climate is one else one.values.gain_over(climate.values.counts, config)
        table["value_accuracy_gain_over_climate"] = more
        gaps = [{"control": c, **table[f"gap_to_{c}"]} for c in CONTROLS if table[f"gap_to_{c}"]]
        table["gap"] = min(gaps, key=lambda gap: gap["value"])
        tables[name] = table
    return tables


def _gap(one: Judged, other: Judged, config: NarrationEvaluation) -> dict[str, float | None]:
    """Return how many more nats another narrator needs for the same captions, per token of the one."""
    found = one.likelihoods
    assert found.dates == other.likelihoods.dates, "both are judged on the same pairs"
    more, own = (_by_spell(nats[0], found.tokens, found.dates) for nats in (other.likelihoods.nats, found.nats))
    return paired_bootstrap(more, own, config.resamples, config.seed).json()

"""The stage that shows every window to the vision model once, and asks about it what its fields answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.training import Execution
from configs.weather_questions import WeatherQuestionRecipe
from storage.assets import Asset, Unit
from storage.files import atomic_path, write_atomic
from storage.hashing import digest
from storage.question_set import Asked, features_file, write_features, write_questions
from storage.window_dataset import WindowDataset
from tasks.intervals import spells
from tasks.showing import seen_of, show_units
from tasks.stage import Job, StageResult, stage
from tasks.units import UnitOutput
from tasks.weather_questions.asking import Climate, questions_of
from tasks.weather_questions.facts import FACTS, Floats, Quantity, facts_of, quantities_of

if TYPE_CHECKING:
    from models.weather.sat_swin_mae import SatSwinMAE

SPLITS = ("train", "validation", "test")
PER_UNIT, BATCH = 256, 16
CONTEXT = ("time", "latitude", "longitude")


class Shown(NamedTuple):
    """What a unit shows to the vision model: windows of one split."""

    encoder: Path
    store: Path
    training_set: Path
    split: str
    places: list[int]
    tokens: tuple[int, int, int]
    file: str
    device: str


@stage("question_set")
def weather_questions(
    job: Job, *, store: Asset, training_set: Asset, mae: Asset, recipe: WeatherQuestionRecipe, execution: Execution
) -> StageResult:
    """Keep what the vision model sees of each window, as float16, beside questions that the window's fields answer.

    What is usual is known from training windows alone.
    """
    from tasks.mae.released import MaeRelease
    from tasks.training.share import Share

    windows = {split: WindowDataset(store.folder, training_set.folder, split) for split in SPLITS}
    release = MaeRelease.from_release(mae.folder)
    release.check(windows["train"])
    quantities = quantities_of(windows["train"].store.attrs)
    device = str(Share.device_of(execution))
    identity = [mae.fingerprint, store.fingerprint, training_set.fingerprint, list(recipe.tokens)]
    units: list[Unit] = []
    for split in SPLITS:
        for places in _chosen(len(windows[split]), recipe.windows):
            file = f"{len(units):05d}"
            payload = Shown(mae.folder, store.folder, training_set.folder, split, places, recipe.tokens, file, device)
            units.append(job.unit(f"{split}-{file}", [*identity, split, digest(places), file], payload))
    show_units(job, _show, units, sum(len(unit.payload.places) for unit in units), device)

    facts = {unit.payload.file: np.load(job.folder / _facts_file(unit.payload.file)) for unit in units}
    training = [facts[unit.payload.file] for unit in units if unit.payload.split == "train"]
    climates = _climates(quantities, training)
    asked = _asked(units, windows, facts, climates, recipe)
    if not any(one.split == "train" for one in asked):
        raise ValueError(
            "the fields of the training windows answer no question clearly; make windows larger or longer, or give "
            "more channels in recipe.variables"
        )
    shape = (int(np.prod(_pooled_grid(release.network, recipe.tokens))), release.network.token_width)
    write_questions(job.folder, asked, [len(unit.payload.places) for unit in units], shape, {})
    usual = {q.name: {"mean": climate.mean, "levels": climate.levels} for q, climate in climates.items()}
    write_atomic(job.folder / "climate.json", json.dumps(usual, indent=1))
    counts = {split: sum(one.split == split for one in asked) for split in SPLITS}
    return StageResult(
        counts={
            "windows": sum(map(len, facts.values())), **counts, "tokens": shape[0], "width": shape[1],
            "quantities": ", ".join(q.name for q in quantities),
        }
    )  # fmt: skip


def _chosen(count: int, most: int) -> list[list[int]]:
    """Return places of windows, evenly spaced where there are more than `most`, in lists for a unit each."""
    places = (np.arange(min(count, most)) * count // max(min(count, most), 1)).tolist()
    return [places[first : first + PER_UNIT] for first in range(0, len(places), PER_UNIT)]


def _climates(quantities: Sequence[Quantity], training: Sequence[Floats]) -> dict[Quantity, Climate]:
    """Return what is usual, from the facts of training windows."""
    if not training:
        raise ValueError("the training split has no windows; lengthen the period, or lower windows.time")
    together = np.concatenate(training)
    return {quantity: Climate.of(together[:, k]) for k, quantity in enumerate(quantities)}


def _asked(
    units: Sequence[Unit],
    windows: Mapping[str, WindowDataset],
    facts: Mapping[str, Floats],
    climates: Mapping[Quantity, Climate],
    recipe: WeatherQuestionRecipe,
) -> list[Asked]:
    """Return the questions about all windows; those of a window hang on nothing but its facts, its place and seed."""
    shown = [(unit.payload, k, place) for unit in units for k, place in enumerate(unit.payload.places)]
    anchors = [_anchor(windows[of.split], place) for of, _, place in shown]
    groups = _spells([of.split for of, _, _ in shown], [moment for moment, _ in anchors])
    found: list[Asked] = []
    for item, ((of, k, place), (moment, corner), spell) in enumerate(zip(shown, anchors, groups, strict=True)):
        seed = [recipe.seed, SPLITS.index(of.split), place]
        of_window = dict(zip(climates, facts[of.file][k], strict=True))
        found += [
            Asked(of.split, item, one.question, one.answer, False, place, f"{moment} {corner}", spell)
            for one in questions_of(of_window, climates, recipe.per_window, seed)
        ]
    return found


def _spells(splits: Sequence[str], moments: Sequence[np.datetime64]) -> list[int]:
    """Return the spell of weather of each window, within its split."""
    found = np.zeros(len(splits), np.int64)
    for split in SPLITS:
        of_split = np.array(splits) == split
        found[of_split] = spells(np.array(moments)[of_split])
    return found.tolist()


def _anchor(windows: WindowDataset, place: int) -> tuple[np.datetime64, str]:
    """Return what people call a window: the hour of its anchor step, and its corner in the north west."""
    t, y, x = windows.training_set.origin(windows.split, place)
    store = windows.store
    moment = store.time[t + windows.training_set.grid.anchor_step].astype("datetime64[h]")
    return moment, f"{store.latitude[y]:g} {store.longitude[x]:g}"


def _facts_file(name: str) -> str:
    return f"facts/{name}.npy"


def _show(folder: Path, unit: Unit) -> UnitOutput:
    """Show windows of a unit to the vision model, and measure their fields."""
    shown: Shown = unit.payload
    network = _network(shown.encoder, shown.device)
    windows = WindowDataset(shown.store, shown.training_set, shown.split)
    features, facts = features_file(int(shown.file)), _facts_file(shown.file)
    write_features(
        folder / features, seen_of(lambda places: _seen(network, windows, places, shown), shown.places, BATCH)
    )
    measured = np.stack([window_facts(windows, place) for place in shown.places])
    with atomic_path(folder / facts) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array(file, measured, allow_pickle=False)
    return UnitOutput([features, facts])


@torch.no_grad()
def _seen(network: SatSwinMAE, windows: WindowDataset, places: Sequence[int], shown: Shown) -> Tensor:
    """Return what the vision model sees of windows: (B, K, width)."""
    samples = [windows[place] for place in places]
    batch = {name: torch.stack([one[name] for one in samples]).to(shown.device) for name in ("data", *CONTEXT)}
    tokens = network.encode_tokens(batch["data"], **{name: batch[name] for name in CONTEXT})
    return pooled(tokens, network.token_grid, _pooled_grid(network, shown.tokens))


def pooled(tokens: Tensor, grid: Sequence[int], smaller: tuple[int, int, int]) -> Tensor:
    """Return tokens (B, K, width) on a grid of (time, rows, columns) as means on a smaller one, (B, K', width)."""
    if tuple(grid) == smaller:
        return tokens
    volume = tokens.transpose(1, 2).unflatten(2, tuple(grid))
    return F.adaptive_avg_pool3d(volume, smaller).flatten(2).transpose(1, 2)


def _pooled_grid(network: SatSwinMAE, most: Sequence[int]) -> tuple[int, int, int]:
    time, rows, columns = (min(size, limit) for size, limit in zip(network.token_grid, most, strict=True))
    return time, rows, columns


def window_facts(windows: WindowDataset, place: int) -> Floats:
    """Return (Q, F): what the fields of a window say about each quantity that the store has, from its raw values."""
    store = windows.store
    t, y, x = windows.training_set.origin(windows.split, place)
    shape = windows.training_set.grid.shape
    fields = dict(zip(store.channels, store.read(t, y, x, shape), strict=True))
    latitude = store.latitude[y : y + shape[1]]
    found = [facts_of(quantity.values(fields), latitude) for quantity in quantities_of(store.attrs)]
    assert all(len(facts) == len(FACTS) for facts in found)
    return np.stack(found)


@lru_cache(maxsize=1)
def _network(folder: Path, device: str) -> SatSwinMAE:
    from tasks.mae.released import MaeRelease

    network = MaeRelease.from_release(folder).network
    network.to(device)
    return network

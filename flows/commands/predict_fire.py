"""`millrace predict-fire`: a trained model on a fire of any archive."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from flows.runs import RunRecord, recorded
from flows.wildfire import cache_of, visible_archive
from storage.assets import Asset, AssetStore
from storage.fire_split import FireSplit
from storage.lineage import best, made_from, short_name
from storage.raw import FoundFiles
from storage.token_cache import TokenCache
from tasks.fire.archive import LANDSCAPE
from tasks.fire.records import why_left_out
from tasks.progress import Terminal
from tasks.session import Session
from tasks.units import Workers

KIND = "fire_model"
PARTS = {"train": "trained on", "validation": "chosen by", "test": "never shown"}


def predict_sequence(
    console: Console,
    store: AssetStore,
    *,
    model: str | None,
    archive: str | None,
    sequence: str,
    start: int | None,
    ahead: int,
    output: Path,
) -> None:
    """Predict frames of one fire and write GeoTIFF, PNG and scores; the archive is decoded once and then cached."""
    from tasks.fire.other_archives import require_same_pixels
    from tasks.fire.predict import predict_fire, write_predictions
    from tasks.fire.released import FireRelease

    asset = store.find(model) if model else best_model(store)
    session = Session(store, Terminal(console), workers=Workers.parse("auto"))
    asked = {"model": asset.name, "archive": archive, "sequence": sequence, "start": start, "ahead": ahead}
    with recorded(session, RunRecord.begin("predict-fire", "", asked, session.engine)):
        session.hold(asset)
        asset.fetch()
        release = FireRelease.from_release(asset.folder)
        if archive is None:
            cache = _cache_of(store, asset)
            session.hold(cache)
            cache.fetch()
        else:
            cache = cache_of(_files_of(archive), release.decoding, release.spec.patch)
        require_same_pixels(cache.folder, release.spec.cell_metres)
        samples = release.samples(cache.folder)
        fire = _find(store, cache, samples.cache, sequence)
        told = f"model {short_name(asset)} ({release.recipe.model.kind}){_acquaintance(store, asset, cache, fire)}"
        console.print(escape(told), highlight=False, soft_wrap=True)
        place, predictions = predict_fire(
            release.predict,
            samples,
            fire,
            start=start,
            ahead=ahead,
            threshold=release.threshold,
        )
    scores = write_predictions(predictions, place, output)
    for facts in json.loads(scores.read_text()):
        console.print(describe(facts), highlight=False, soft_wrap=True)
    told = f"{len(predictions)} GeoTIFF and PNG files, and {scores.name}, in {output}"
    console.print(escape(told), highlight=False, soft_wrap=True)


def describe(facts: Mapping[str, Any]) -> str:
    """Return what a prediction came to; growth has no score where nothing grows."""
    scores = facts["scores"] or {}
    shown = {"growth_f1": "growth-F1", "iou": "IoU"}
    told = [f"{name} {'undefined' if scores[k] is None else f'{scores[k]:.3f}'}" for k, name in shown.items() if scores]
    words = ", ".join(told) or "beyond the record"
    return f"frame {facts['frame']}: {facts['predicted_hectares']:.1f} ha burnt; {words}"


def best_model(store: AssetStore) -> Asset:
    """Return, of the models trained on the newest one's split, the one with the best growth-F1 on validation fires."""
    return best(store, KIND, "growth_f1", alike=("fire_split",))


def _find(store: AssetStore, cache: Asset, fires: TokenCache, sequence: str) -> int:
    """Return the index of a fire; where its files could not be used, the error says why."""
    try:
        return fires.find(sequence)
    except ValueError:
        records = None
        with contextlib.suppress(ValueError):
            records = made_from(store, cache, "fire_records")
        if records is not None:
            records.fetch()
            if reason := why_left_out(records.folder, sequence):
                raise ValueError(f"there is no fire {sequence} in the cache: it was left out, {reason}") from None
        raise


def _acquaintance(store: AssetStore, model: Asset, cache: Asset, fire: int) -> str:
    """Return, where it is known, whether the model has met the fire before: then its scores say little."""
    read = {record.kind: record.key for record in model.manifest.inputs}
    if read.get("fire_cache") != cache.key:
        return ""
    split = store.asset("fire_split", read["fire_split"])
    if not store.published(split):
        return ""
    split.fetch()
    entry = FireSplit.load(split.folder).fires[fire]
    return f", which was {PARTS[entry.part]} this fire" if entry.part else ", whose split leaves this fire out"


def _files_of(archive: str) -> FoundFiles:
    folder = Path(archive).expanduser().absolute()
    if not (folder / LANDSCAPE).is_file():
        raise ValueError(
            f"--archive: {folder} is no fire archive, it has no {LANDSCAPE}; give the folder that holds landscape/, "
            "fire_frames/ and isochrones/"
        )
    return visible_archive(archive)


def _cache_of(store: AssetStore, model: Asset) -> Asset:
    """Return the token cache that a model was trained on."""
    found = None
    with contextlib.suppress(ValueError):
        found = made_from(store, model, "fire_cache")
    if found is None:
        raise ValueError(f"the data that {short_name(model)} was trained on is gone; name an archive with --archive")
    return found

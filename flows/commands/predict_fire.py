"""`millrace predict-fire`: a trained model on a fire of any archive."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from flows.runs import RunRecord, recorded
from flows.wildfire import cache_of, visible_archive
from storage.assets import Asset, AssetStore
from storage.lineage import best, made_from, short_name
from storage.raw import FoundFiles
from storage.token_cache import TokenCache
from tasks.fire.archive import LANDSCAPE
from tasks.fire.records import why_left_out
from tasks.progress import Terminal
from tasks.session import Session
from tasks.units import Workers

if TYPE_CHECKING:
    from tasks.fire.released import FireRelease

KIND = "fire_model"
MET: dict[str | None, str] = {
    "train": "which was trained on this fire",
    "validation": "which was chosen by this fire",
    "test": "which was never shown this fire",
    None: "whose split leaves this fire out",
}
"""What became of a fire in a model's split, by its part."""


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
    from tasks.fire.predict import predict_fire, write_predictions
    from tasks.fire.released import FireRelease

    asset = store.find(model) if model else best_model(store)
    session = Session(store, Terminal(console), workers=Workers.parse("auto"))
    asked = {"model": asset.name, "archive": archive, "sequence": sequence, "start": start, "ahead": ahead}
    with recorded(session, RunRecord.begin("predict-fire", "", asked, session.engine)):
        session.hold(asset)
        asset.fetch()
        release = FireRelease.from_release(asset.folder)
        own = _own(store, asset, "fire_cache")
        if own is not None:
            session.hold(own)
        cache = own if archive is None else _other_cache(archive, release, own)
        if cache is None:
            raise ValueError(
                f"the data that {short_name(asset)} was trained on is gone; name an archive with --archive"
            )
        samples = release.samples(cache.folder)
        fire = _find(store, cache, samples.cache, sequence)
        met = _acquaintance(cache, fire, own, _own(store, asset, "fire_split"))
        told = f"model {short_name(asset)} ({release.recipe.model.kind}), {met}"
        console.print(escape(told), highlight=False, soft_wrap=True)
        place, predictions = predict_fire(
            release.predict,
            samples,
            fire,
            start=start,
            ahead=ahead,
            threshold=release.threshold,
        )
    made_by = {"model": asset.name, "threshold": release.threshold}
    scores = write_predictions(predictions, place, output, made_by=made_by)
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


def _acquaintance(cache: Asset, fire: int, own: Asset | None, split: Asset | None) -> str:
    """Return whether a model has met the fire before: then its scores say little."""
    from tasks.fire.other_archives import met_before

    if own is None or split is None:
        return "of which it is not known whether it was trained on this fire: its data or its split is gone"
    entry = met_before(cache.folder, fire, own.folder, split.folder)
    return MET[entry.part] if entry else "whose data have no such fire"


def _other_cache(archive: str, release: FireRelease, own: Asset | None) -> Asset:
    """Return the token cache of an archive, made as a model's own was."""
    from tasks.fire.other_archives import require_pixels_as_told, require_same_pixels

    cache: Asset = cache_of(_files_of(archive), release.decoding, release.spec.patch)
    cache.fetch()
    require_pixels_as_told(cache.folder, own.folder if own else None)
    require_same_pixels(cache.folder, release.spec.cell_metres)
    return cache


def _files_of(archive: str) -> FoundFiles:
    folder = Path(archive).expanduser().absolute()
    if not (folder / LANDSCAPE).is_file():
        raise ValueError(
            f"--archive: {folder} is no fire archive, it has no {LANDSCAPE}; give the folder that holds landscape/, "
            "fire_frames/ and isochrones/"
        )
    return visible_archive(archive)


def _own(store: AssetStore, model: Asset, kind: str) -> Asset | None:
    """Return what a model was trained on, its files at hand; None where it is gone."""
    found = None
    with contextlib.suppress(ValueError):
        found = made_from(store, model, kind)
    if found is not None:
        found.fetch()
    return found

"""`millrace predict-fire`: a trained model on a fire of any archive."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from configs.fire_data import Tokens
from storage.assets import Asset, AssetStore
from tasks.fire.archive import archive_files, archive_names
from tasks.fire.cache import fire_cache
from tasks.fire.records import fire_records
from tasks.progress import Terminal
from tasks.session import Session
from tasks.stage import raw_input
from tasks.units import Workers

CALIBRATION_BINS = 16


def predict_sequence(
    console: Console,
    store: AssetStore,
    *,
    model: str,
    archive: str | None,
    sequence: str,
    start: int | None,
    ahead: int,
    output: Path,
) -> None:
    """Predict frames of one fire and write GeoTIFF, PNG and scores; the archive is decoded once and then cached."""
    from tasks.fire.predict import predict_fire, write_predictions
    from tasks.fire.released import load_fire_model

    asset = store.find(model)
    release = load_fire_model(asset.folder)
    session = Session(store, Terminal(console), workers=Workers.parse("auto"))
    with session.active():
        if archive is None:
            cache = _cache_of(store, asset)
        else:
            raw = raw_input("fire_archive", _files_of(archive))
            tokens = Tokens(patch=release.spec.patch)
            records = fire_records(
                raw=raw, names=archive_names(raw), decoding=release.decoding, tokens=tokens, on_broken="skip"
            )
            cache = fire_cache(records=records)
        samples = release.samples(cache.folder)
        place, predictions = predict_fire(
            release.predict,
            samples,
            samples.cache.find(sequence),
            start=start,
            ahead=ahead,
            threshold=release.threshold,
        )
    scores = write_predictions(predictions, place, output, CALIBRATION_BINS)
    for facts in json.loads(scores.read_text()):
        scored = facts["scores"]
        told = f"growth-F1 {scored['growth_f1']:.3f}, IoU {scored['iou']:.3f}" if scored else "beyond the record"
        console.print(
            f"frame {facts['frame']}: {facts['predicted_hectares']:.1f} ha burnt; {told}",
            highlight=False,
            soft_wrap=True,
        )
    told = f"{len(predictions)} GeoTIFF and PNG files, and {scores.name}, in {output}"
    console.print(escape(told), highlight=False, soft_wrap=True)


def _files_of(archive: str) -> list[Path]:
    try:
        return archive_files(archive)
    except ValueError as error:
        raise ValueError(str(error).replace("source.path", "--archive", 1)) from None


def _cache_of(store: AssetStore, model: Asset) -> Asset:
    """Return the token cache that a model was trained on."""
    for record in model.manifest.inputs:
        if record.kind == "fire_cache" and (asset := store.asset(record.kind, record.key)).folder.exists():
            return asset
    raise ValueError(f"the data that {model} was trained on is gone; name an archive with --archive")

"""Predictions for one fire of an archive, as georeferenced GeoTIFF, picture and scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.files import write_atomic
from storage.geotiff import new_geotiff
from tasks.fire.evaluation import load_batch
from tasks.fire.prediction import Place, Prediction
from tasks.fire.rollout import Probability, advance
from tasks.fire.scores import CALIBRATION_BINS, Scorer, measures
from tasks.fire.turns import Turn

if TYPE_CHECKING:
    from torch import Tensor

    from models.fire.batch import FireBatch
    from tasks.fire.dataset import FireDataset

NODATA = -9999.0
BANDS = ("probability", "burnt", "burnt_before")


def predict_fire(
    predict: Probability, samples: FireDataset, fire: int, *, start: int | None, ahead: int, threshold: float
) -> tuple[Place, list[Prediction]]:
    """Predict `ahead` frames from frame `start` on; each but the first builds on the one before.

    `start` may be the last frame of the record (None): what follows has no truth, and has the wind that the record may
    hold for it; from there on the last known wind goes on.

    Args:
        predict: the predictor.
        samples: samples that hold the fire, whole crops, with the inputs that the predictor is shown.
        fire: number of the fire in the cache.
        start: last frame that is known.
        ahead: frames to predict.
        threshold: probability from which on a pixel counts as burnt.

    Raises:
        ValueError: the fire is not among the samples, or has no such frame.
    """
    import torch

    name = samples.cache.names[fire]
    where = {step: index for index, (own, step) in enumerate(samples.samples) if own == fire}
    if not where:
        raise ValueError(f"{name} is not among the samples; choose another fire or part")
    last = max(where) + 1
    start = last if start is None else start
    if not 0 <= start <= last:
        raise ValueError(f"{name} has frames 0 to {last}; there is no frame {start} to start from")
    place = Place.of(samples, where[0])
    _, measured = samples.cache.wind(fire)
    predictions = []
    with torch.inference_mode():
        batch = load_batch(samples, [where[min(start, last - 1)]])
        if start == last:
            batch = _next(samples, fire, where, batch, batch.target)
        before = (batch.burnt & batch.domain)[0]
        for frame in range(start + 1, start + ahead + 1):
            probability = predict(batch).float().cpu()
            burnt = (batch.burnt | (probability >= threshold)) & batch.domain
            truth = batch.target[0] if frame <= last else None
            masks = {"burnt": burnt[0], "before": before, "domain": batch.domain[0], "truth": truth}
            arrays = {key: place.crop(mask) for key, mask in masks.items() if mask is not None}
            wind_known = bool(measured[frame - 1 : frame].any() and batch.wind_valid[0, -1])
            shown = place.crop(torch.where(batch.domain, probability, 0.0)[0])
            predictions.append(Prediction(name, start, frame, wind_known, shown, **arrays))
            batch = _next(samples, fire, where, batch, burnt)
    return place, predictions


def _next(samples: FireDataset, fire: int, where: dict[int, int], batch: FireBatch, burnt: Tensor) -> FireBatch:
    """Return the next batch, with the wind that followed or, beyond the record, the last one."""
    import torch

    step, target = int(batch.step[0]) + 1, None
    wind, known = batch.wind[:, -1], batch.wind_valid[:, -1]
    if step in where:
        true = load_batch(samples, [where[step]])
        wind, known, target = true.wind[:, -1], true.wind_valid[:, -1], true.target
    elif step < samples.cache.steps[fire]:  # a row for what comes after the last frame
        row, valid = samples._inputs.wind(fire, slice(step, step + 1), Turn())
        if valid.any():
            wind, known = torch.from_numpy(row), torch.from_numpy(valid)
    return advance(batch, burnt, wind, known, patch=samples.spec.patch, history=samples.history, target=target)


def write_predictions(
    predictions: Sequence[Prediction], place: Place, folder: Path, *, made_by: Mapping[str, Any]
) -> Path:
    """Write a GeoTIFF and a PNG per prediction and one JSON of scores; return the path of the JSON.

    They take the place of all files of an earlier run of the same fire and start. Tags and JSON say what they are
    `made_by`.
    """
    from tasks.figures import save_figure
    from tasks.fire.figures_overlay import draw_overlay

    run = predictions[0].run
    for ending in (".json", "_to_*.tif", "_to_*.png"):
        for earlier in folder.glob(run + ending):
            earlier.unlink()
    for prediction in predictions:
        write_geotiff(prediction, place, folder / f"{prediction.name}.tif", made_by)
        save_figure(draw_overlay(prediction, place), folder / f"{prediction.name}.png")
    path = folder / f"{run}.json"
    facts = [{**made_by, **prediction_facts(prediction, place)} for prediction in predictions]
    write_atomic(path, json.dumps(facts, indent=1, allow_nan=False) + "\n")
    return path


def write_geotiff(prediction: Prediction, place: Place, path: Path, made_by: Mapping[str, Any]) -> None:
    """Write probability, predicted state and the known state before as float32 bands, nodata outside the domain."""
    import warnings

    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.transform import Affine

    bands = [prediction.probability, prediction.burnt, prediction.before]
    a, b, c, d, e, f = place.transform
    corner = a * place.column + b * place.row + c, d * place.column + e * place.row + f
    profile = {
        "dtype": "float32", "count": len(BANDS), "height": place.height, "width": place.width,
        "crs": place.crs or None, "transform": Affine(a, b, corner[0], d, e, corner[1]), "nodata": NODATA,
        "compress": "deflate",
    }  # fmt: skip
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        new_geotiff(path, **profile) as file,
    ):
        for index, (band, name) in enumerate(zip(bands, BANDS, strict=True), 1):
            file.write(np.where(prediction.domain, band, NODATA).astype(np.float32), index)
            file.set_band_description(index, name)
        file.update_tags(**made_by, fire=prediction.fire, start=prediction.start, frame=prediction.frame)


def prediction_facts(prediction: Prediction, place: Place) -> dict[str, Any]:
    """Return burnt areas in hectares and, where the truth is known, the scores of the predicted frame."""
    hectares = place.cell_metres**2 / 1e4
    facts: dict[str, Any] = {
        "fire": prediction.fire,
        "start": prediction.start,
        "frame": prediction.frame,
        "wind": "measured" if prediction.wind_known else "the last measured one",
        "burnt_before_hectares": float(prediction.before.sum() * hectares),
        "predicted_hectares": float(prediction.burnt.sum() * hectares),
        "true_hectares": None,
        "scores": None,
    }
    if prediction.truth is not None:
        scorer = Scorer()
        scorer.add(
            prediction.burnt.astype(np.float32), prediction.truth, prediction.before, prediction.domain,
            fire=0, step=prediction.start,
        )  # fmt: skip
        found = measures(scorer.histograms(), 0.5, CALIBRATION_BINS)
        names = ("f1", "iou", "growth_f1", "growth_precision", "growth_recall")
        scores = {name: float(found[name][0]) for name in names}
        facts["true_hectares"] = float((prediction.truth & prediction.domain).sum() * hectares)
        facts["scores"] = {name: value if np.isfinite(value) else None for name, value in scores.items()}
    return facts

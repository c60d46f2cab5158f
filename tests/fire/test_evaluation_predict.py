"""Predictions as files: in the right place on Earth, with the right numbers, and scores where the truth is known."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import zarr
from rasterio.crs import CRS
from torch import Tensor

from flows.unseen import KNOWN
from models.fire.batch import FireBatch
from storage.fire_split import FireSplit
from storage.token_cache import TokenCache
from tasks.fire import other_archives
from tasks.fire.dataset import FireDataset
from tasks.fire.evaluation import load_batch
from tasks.fire.other_archives import require_pixels_as_told, require_same_pixels, require_unknown_fires
from tasks.fire.predict import NODATA, predict_fire, write_predictions
from tasks.fire.prediction import Place, Prediction


@pytest.fixture(scope="module")
def samples(fires: tuple[Path, Path]) -> FireDataset:
    return FireDataset(*fires, "all", history=4)


def grow(batch: FireBatch) -> Tensor:
    """Everything beside a burnt pixel burns with 0.7, the rest with 0.1."""
    near = torch.nn.functional.max_pool2d(batch.burnt.float()[:, None], 3, 1, 1)[:, 0]
    return torch.where(batch.burnt, 1.0, 0.1 + 0.6 * near)


def write(predictions: list[Prediction], place: Place, folder: Path, model: str = "fire_model/a") -> Path:
    return write_predictions(predictions, place, folder, made_by={"model": model, "threshold": 0.5})


@pytest.fixture(scope="module")
def longest(samples: FireDataset) -> int:
    return max(samples.fires, key=lambda fire: samples.cache.steps[fire])


def test_a_pixel_lies_where_the_landscape_has_it(
    samples: FireDataset, fires: tuple[Path, Path], tmp_path: Path
) -> None:
    archive = next(fires[0].parents[1].glob("fire_sample/*/archive/landscape/Input_Geotiff.tif"))
    for fire in samples.fires[:3]:
        place, predictions = predict_fire(grow, samples, fire, start=0, ahead=1, threshold=0.5)
        write(predictions, place, tmp_path)
        crop = TokenCache.open(fires[0]).crops[fire]
        with rasterio.open(archive) as landscape, rasterio.open(tmp_path / f"{predictions[0].name}.tif") as file:
            assert file.crs == landscape.crs
            assert file.shape == (crop.height, crop.width)
            for row, column in ((0, 0), (crop.height - 1, 3), (5, crop.width - 1)):
                assert file.xy(row, column) == pytest.approx(landscape.xy(crop.y0 + row, crop.x0 + column))
            fuels = landscape.read(landscape.descriptions.index("fuels") + 1, masked=True)
            outside = np.ma.getmaskarray(fuels)[crop.pixels]
            for band in (1, 2, 3):
                assert np.array_equal(file.read(band) == NODATA, outside)
            assert file.descriptions == ("probability", "burnt", "burnt_before")
            assert file.nodata == NODATA


def test_bands_hold_the_prediction(samples: FireDataset, longest: int, tmp_path: Path) -> None:
    index = samples.samples.index((longest, 1))
    batch = load_batch(samples, [index])
    place, predictions = predict_fire(grow, samples, longest, start=1, ahead=1, threshold=0.5)
    write(predictions, place, tmp_path)
    inside = batch.domain[0].numpy()[: place.height, : place.width]
    with rasterio.open(tmp_path / f"{predictions[0].name}.tif") as file:
        probability, burnt, before = file.read()
    expected = grow(batch)[0].numpy()[: place.height, : place.width]
    assert np.array_equal(probability[inside], expected[inside])
    assert np.array_equal(burnt[inside] == 1, expected[inside] >= 0.5)
    assert np.array_equal(before[inside] == 1, batch.burnt[0].numpy()[: place.height, : place.width][inside])
    picture = (tmp_path / f"{predictions[0].name}.png").read_bytes()
    assert picture[1:4] == b"PNG"
    write(predictions, place, tmp_path)
    assert (tmp_path / f"{predictions[0].name}.png").read_bytes() == picture


def test_scores_appear_where_the_truth_is_known(samples: FireDataset, longest: int, tmp_path: Path) -> None:
    last = samples.cache.steps[longest] - 1
    place, predictions = predict_fire(grow, samples, longest, start=last - 2, ahead=4, threshold=0.5)
    facts = json.loads(write(predictions, place, tmp_path).read_text())
    assert [f["frame"] for f in facts] == [last - 1, last, last + 1, last + 2]
    assert [f["scores"] is not None for f in facts] == [True, True, False, False]
    assert [f["wind"] == "measured" for f in facts] == [True, True, False, False]
    truth = samples.cache.target(longest, last)
    domain = samples.cache.domain(longest)
    predicted = predictions[1].burnt
    both, either = (predicted & truth & domain).sum(), ((predicted | truth) & domain).sum()
    assert facts[1]["scores"]["iou"] == pytest.approx(both / either)
    assert facts[1]["true_hectares"] == pytest.approx((truth & domain).sum() * place.cell_metres**2 / 1e4)
    assert all(not (a.burnt & ~b.burnt).any() for a, b in pairwise(predictions))
    own = np.zeros_like(predicted)
    own[predictions[0].burnt] = True
    ring = torch.nn.functional.max_pool2d(torch.from_numpy(own).float()[None, None], 3, 1, 1)[0, 0].numpy() > 0
    assert np.array_equal(predicted, ring & domain), "the second frame builds on the first prediction"


def test_files_name_their_model_and_those_of_an_earlier_run_go(
    samples: FireDataset, longest: int, tmp_path: Path
) -> None:
    place, predictions = predict_fire(grow, samples, longest, start=0, ahead=3, threshold=0.5)
    _, later = predict_fire(grow, samples, longest, start=1, ahead=1, threshold=0.5)
    write(predictions, place, tmp_path)
    write(later, place, tmp_path)
    (tmp_path / "notes.txt").write_text("of mine")
    facts = json.loads(write(predictions[:1], place, tmp_path, model="fire_model_int8/b").read_text())
    assert [(fact["frame"], fact["model"], fact["threshold"]) for fact in facts] == [(1, "fire_model_int8/b", 0.5)]
    runs = ((predictions[0], "fire_model_int8/b"), (later[0], "fire_model/a"))
    kept = [f"{p.name}.{kind}" for p, _ in runs for kind in ("tif", "png")] + [f"{p.run}.json" for p, _ in runs]
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", *kept}
    for prediction, model in runs:
        with rasterio.open(tmp_path / f"{prediction.name}.tif") as file:
            assert (file.tags()["model"], file.tags()["threshold"]) == (model, "0.5")


def test_forecasts_begin_at_the_last_frame(samples: FireDataset, longest: int) -> None:
    last = samples.cache.steps[longest] - 1
    seen: list[FireBatch] = []

    def watch(batch: FireBatch) -> Tensor:
        seen.append(batch)
        return grow(batch)

    _, predictions = predict_fire(watch, samples, longest, start=None, ahead=1, threshold=0.5)
    assert (predictions[0].start, predictions[0].frame) == (last, last + 1)
    assert predictions[0].truth is None
    frames = samples.cache.frames(longest)[last]
    assert np.array_equal(predictions[0].before, frames & samples.cache.domain(longest))
    before = load_batch(samples, [samples.samples.index((longest, last - 1))])
    assert torch.equal(seen[0].wind[:, -1], before.wind[:, -1])
    with pytest.raises(ValueError, match=f"has frames 0 to {last}; there is no frame {last + 1}"):
        predict_fire(grow, samples, longest, start=last + 1, ahead=1, threshold=0.5)
    with pytest.raises(ValueError, match="has frames 0 to"):
        predict_fire(grow, samples, longest, start=-1, ahead=1, threshold=0.5)


def test_a_forecast_has_the_wind_that_the_record_holds_for_it(
    samples: FireDataset, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, valid = samples.cache.wind(longest)
    assert not valid[-1], "the sample has a row per step"
    measured, valid = measured.copy(), valid.copy()
    measured[-1], valid[-1] = (12.5, 1.0, 0.0), True
    monkeypatch.setattr(samples.cache, "wind", lambda fire: (measured, valid))
    winds: list[Tensor] = []

    def watch(batch: FireBatch) -> Tensor:
        winds.append(batch.wind[0, -1])
        return grow(batch)

    _, predictions = predict_fire(watch, samples, longest, start=None, ahead=2, threshold=0.5)
    scale = samples.statistics.wind
    assert winds[0][0] == pytest.approx((12.5 - scale.mean) / scale.std, rel=1e-5)
    assert torch.equal(winds[1], winds[0]), "from there on it goes on"
    assert [prediction.wind_known for prediction in predictions] == [True, False]


def test_archives_with_other_pixels_or_known_fires_are_refused(
    fires: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, split = fires
    tokens, known = TokenCache.open(cache), FireSplit.load(split)
    require_same_pixels(cache, tokens.cell_metres * 1.02)
    with pytest.raises(ValueError, match=r"pixels are 20 m wide, but the model was trained on 10 m"):
        require_same_pixels(cache, tokens.cell_metres / 2)
    names = [tokens.names[k] for k in sorted(e.fire for part in KNOWN for e in known.part(part))]
    begins = (
        rf"{len(names)} of the archive's {len(tokens)} fires are among those that the model was trained or chosen on: "
    )
    with pytest.raises(ValueError, match=rf"{begins}{', '.join(names[:5])} and {len(names) - 5} more; "):
        require_unknown_fires(cache, cache, split)
    monkeypatch.setattr(other_archives, "SHOWN", len(names))
    with pytest.raises(ValueError, match=rf"{begins}{', '.join(names)}; "):
        require_unknown_fires(cache, cache, split)


LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'
UTM = CRS.from_epsg(25831).to_wkt()


def told_60_metres(cache: Path, folder: Path, crs: str, transform: tuple[float, ...]) -> Path:
    """Return a copy of a cache, as if `decoding.cell_metres` had been 60, on a raster that lies elsewhere."""
    shutil.copytree(cache, folder)
    attributes = zarr.open_group(folder, mode="r+").attrs
    decoding = attributes["decoding"] | {"cell_metres": 60.0}
    attributes.update({"decoding": decoding, "cell_metres": 60.0, "crs": crs, "transform": list(transform)})
    return folder


@pytest.mark.parametrize(
    ("crs", "transform", "refusal"),
    [
        ("", (1, 0, 0, 0, 1, 0), None),
        (LOCAL, (20, 0, 0, 0, -20, 900), None),
        (UTM, (58, 0, 300_000, 0, -58, 4_600_000), None),
        (UTM, (20, 0, 300_000, 0, -20, 4_600_000), "pixels are 20 m wide, but the model was trained on 60 m"),
        (CRS.from_epsg(3413).to_wkt(), (60, 0, 1_100_000, 0, -60, -1_100_000), "north is .* away from up"),
    ],
    ids=["no georeference", "a system of its own", "as told", "other pixels", "turned"],
)  # fmt: skip
def test_a_georeference_is_held_against_the_pixels_that_a_model_was_told(
    fires: tuple[Path, Path], tmp_path: Path, crs: str, transform: tuple[float, ...], refusal: str | None
) -> None:
    archive = told_60_metres(fires[0], tmp_path / "archive", crs, transform)
    for own in (None, fires[0]):
        with pytest.raises(ValueError, match=refusal) if refusal else nullcontext():
            require_pixels_as_told(archive, own)
    require_pixels_as_told(archive, archive)
    require_pixels_as_told(fires[0], None)

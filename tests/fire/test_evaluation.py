"""The whole evaluation on generated fires: tables, pictures and intervals say what plain computations say."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.fire_evaluation import EvaluationConfig
from models.fire.batch import FireBatch
from tasks.fire import evaluation_report
from tasks.fire.baselines import COPY_LAST, DILATION, WIND_DILATION, baseline_contenders
from tasks.fire.dataset import FireDataset
from tasks.fire.dilation import Dilation, DilationPredictor, fit_dilations
from tasks.fire.evaluation import Contender, Judged, batches, fires_of_different_size, judge, load_batch
from tasks.fire.evaluation_report import write_evaluation
from tasks.fire.evaluation_tables import _drawn_fires, summarise
from tasks.fire.figures_attention import KINDS, collect_attention, token_kinds
from tasks.fire.scores import BINS, SampleHistograms

CONFIG = EvaluationConfig(
    bootstrap_resamples=100,
    rollout_steps=2,
    maps=2,
    attention_fires=3,
    latency_repeats=0,
    size_edges=(60,),
    dilation_radii=(1, 2, 3, 4, 6),
    dilation_radius_per_wind=(0.0, 0.1),
    dilation_shift_per_wind=(0.0, 0.1, 0.2),
)
Samples = Callable[[str], FireDataset]


@pytest.fixture(scope="module")
def samples(fires: tuple[Path, Path]) -> Samples:
    @lru_cache
    def part(name: str) -> FireDataset:
        return FireDataset(*fires, name, history=4)

    return part


def skilled(batch: FireBatch, noise: float, seed: int) -> Tensor:
    """The truth behind noise that is the same for the same sample."""
    result = []
    for i in range(len(batch)):
        random = torch.Generator().manual_seed(int(batch.fire_index[i]) * 100 + int(batch.step[i]) + 7919 * seed)
        blur = torch.nn.functional.avg_pool2d(batch.target[i].float()[None], 3, 1, 1)[0]
        p = 0.6 * blur + noise * torch.rand(blur.shape, generator=random)
        result.append(torch.where(batch.burnt[i], 1.0, p.clamp(0, 1)))
    return torch.stack(result)


def even_attention(batch: FireBatch) -> list[Tensor]:
    """Two layers: one attends to all frames alike, one to the last frame only."""
    valid = batch.time_valid[:, None, None].float().expand(-1, batch.fire.shape[2], 2, -1)
    last = torch.zeros_like(valid)
    last[..., -1] = 1
    return [valid / valid.sum(dim=-1, keepdim=True), last]


@pytest.fixture(scope="module")
def judged(fires: tuple[Path, Path], samples: Samples) -> list[Judged]:
    contenders = baseline_contenders(*fires, samples, CONFIG)
    for seed in (0, 1):
        contenders.append(
            Contender("good", lambda b, s=seed: skilled(b, 0.3, s), samples, seed=seed, attention=even_attention)
        )
    contenders.append(Contender("poor", lambda b: skilled(b, 0.9, 5), samples, seed=0))
    return [judge(contender, CONFIG) for contender in contenders]


@pytest.fixture(scope="module")
def written(judged: list[Judged], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_evaluation(judged, CONFIG, folder)
    return folder


def test_maps_compare_with_the_best_baseline(
    judged: list[Judged], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(
        evaluation_report, "draw_predictions", lambda *runs: drawn.extend(run.contender.name for run in runs[:2])
    )
    models = write_evaluation(judged, CONFIG, tmp_path)
    best = max((model for model in models if not model.learned), key=lambda m: m.scores["growth_f1"].value)
    assert drawn == ["good", best.name]
    assert best.name != COPY_LAST


def test_every_file_is_there_and_the_same_twice(judged: list[Judged], written: Path, tmp_path: Path) -> None:
    write_evaluation(judged, CONFIG, tmp_path)
    files = sorted(p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file())
    assert [name for name in files if "/" not in name] == [
        "attention_good.png", "by_step.png", "calibration.png", "gains.csv", "groups.csv", "precision_recall.png",
        "predictions.png", "rollout.png", "scores.csv", "scores.json",
    ]  # fmt: skip
    assert len(files) == 10 + len(judged)
    for name in files:
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), name
    again = SampleHistograms.load(written / "histograms" / "03.safetensors")
    assert np.array_equal(again.counts, judged[3].test.counts)


def growth(contender: Contender, samples: FireDataset) -> tuple[np.ndarray, np.ndarray]:
    """Probability and truth of all pixels that might burn for the first time."""
    parts = []
    for index in range(len(samples)):
        batch = load_batch(samples, [index])
        new = batch.counted & ~batch.burnt
        parts.append((contender.predict(batch)[new].numpy(), batch.target[new].numpy()))
    return np.concatenate([p for p, _ in parts]), np.concatenate([t for _, t in parts])


def growth_f1(probability: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    predicted = probability >= threshold
    return 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())


def test_scores_are_those_of_the_frozen_threshold_on_test(
    judged: list[Judged], written: Path, samples: Samples
) -> None:
    found = json.loads((written / "scores.json").read_text())
    assert found["parts"]["test"]["samples"] == len(samples("test"))
    for run in judged:
        model = found["models"][run.contender.name]
        entry = model["runs"][run.contender.seed or 0]
        assert entry["threshold"] == run.threshold
        assert entry["threshold_from"] == ("own" if run.contender.seed is None else "validation")
        assert entry["test"]["growth_f1"] == pytest.approx(
            growth_f1(*growth(run.contender, samples("test")), run.threshold)
        )
    good = found["models"]["good"]
    assert good["test"]["growth_f1"]["value"] == pytest.approx(np.mean([r["test"]["growth_f1"] for r in good["runs"]]))
    assert found["models"][COPY_LAST]["test"]["growth_f1"]["value"] == 0
    assert found["models"][COPY_LAST]["rollout"]["growth_iou"][0]["value"] == 0


def test_intervals_know_that_another_seed_ends_elsewhere_and_that_fires_of_one_place_are_one(
    judged: list[Judged],
) -> None:
    two = [run for run in judged if run.contender.name == "good"]
    apart = [two[0], replace(two[1], threshold=0.9)]  # a seed that foresees nothing
    (fixed,), (moved,) = (summarise(runs, CONFIG) for runs in ([two[0]], apart))
    mine, theirs = (model.scores["growth_f1"].estimate() for model in (fixed, moved))
    assert theirs.high - theirs.low > 2 * (mine.high - mine.low)
    assert theirs.high == pytest.approx(mine.high, abs=0.05), "some resamples have the good seed twice"
    everything = CONFIG.model_copy(update={"bootstrap_block": 10_000})
    whole = summarise([two[0]], everything)[0].scores["growth_f1"].estimate()
    assert whole.low == whole.high == pytest.approx(whole.value)
    pixels = CONFIG.model_copy(update={"bootstrap_block": 1})
    each = summarise([two[0]], pixels)[0].scores["growth_f1"].estimate()
    assert each.high - each.low == pytest.approx(mine.high - mine.low, rel=0.5)


def test_a_twin_of_every_seed_is_compared_seed_by_seed(judged: list[Judged]) -> None:
    """However far seeds lie apart, a copy of each gains nothing, for certain."""
    first, second = (run for run in judged if run.contender.name == "good")
    runs = [first, replace(second, threshold=0.9)]
    twins = [replace(run, contender=replace(run.contender, name="twin")) for run in runs]
    mine, theirs = summarise([*runs, *twins], CONFIG)
    gain = (mine.scores["growth_f1"] - theirs.scores["growth_f1"]).estimate()
    assert (gain.low, gain.value, gain.high) == (0, 0, 0)
    assert (mine.rollout["iou"][0] - theirs.rollout["iou"][0]).estimate().high == 0


def test_fires_are_drawn_with_those_that_begin_in_the_same_square(judged: list[Judged], samples: Samples) -> None:
    drawn = _drawn_fires(judged[0], CONFIG.model_copy(update={"bootstrap_block": 64}))
    cache, squares = samples("test").cache, {}
    for column, fire in enumerate(drawn.groups.tolist()):
        first = np.argwhere(cache.frames(fire)[0]).mean(0) + np.array([cache.crops[fire].y0, cache.crops[fire].x0])
        squares.setdefault(tuple((first // 64).astype(int)), []).append(drawn.weights[:, column])
    assert 1 < len(squares) < len(drawn.groups)
    assert (sum(members[0] for members in squares.values()) == len(squares)).all()
    for members in squares.values():
        assert all(np.array_equal(members[0], other) for other in members)


def test_the_threshold_is_chosen_on_validation_alone(judged: list[Judged], samples: Samples) -> None:
    run = next(j for j in judged if j.contender.name == "good")
    probability, truth = growth(run.contender, samples("validation"))
    best = max(growth_f1(probability, truth, k / BINS) for k in range(1, BINS))
    assert growth_f1(probability, truth, run.threshold) == pytest.approx(best)

    def other_test(part: str) -> FireDataset:
        return samples("train" if part == "test" else part)

    moved = judge(Contender("good", run.contender.predict, other_test, seed=0), CONFIG)
    assert moved.threshold == run.threshold
    assert len(moved.test) != len(run.test)
    fixed = judge(run.contender, CONFIG.model_copy(update={"threshold": 0.3}))
    assert (fixed.threshold, fixed.threshold_from) == (77 / 256, "config")


def test_better_predictions_gain_and_groups_add_up(written: Path) -> None:
    found = json.loads((written / "scores.json").read_text())
    gain = found["differences"]["good"]["poor"]
    assert gain["growth_f1"]["low"] > 0
    assert gain["rollout_iou"][1]["value"] > 0
    assert set(found["differences"]) == {"good", "poor"}
    assert found["differences"]["good"][DILATION]["growth_f1"]["value"] > 0
    for model in found["models"].values():
        for members in model["groups"].values():
            assert sum(group["samples"] for group in members.values()) == found["parts"]["test"]["samples"]
            assert sum(group["growth_pixels"] for group in members.values()) == found["parts"]["test"]["growth_pixels"]


def test_tables_show_baselines_beside_every_model(written: Path) -> None:
    with (written / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == [COPY_LAST, DILATION, WIND_DILATION, "good", "poor"]
    found = json.loads((written / "scores.json").read_text())["models"]["good"]["test"]["growth_f1"]
    assert rows[3]["growth F1"] == f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
    assert rows[3]["seeds"] == "2"
    with (written / "gains.csv").open(newline="") as file:
        pairs = [(row["model"], row["compared with"]) for row in csv.DictReader(file)]
    baselines = [COPY_LAST, DILATION, WIND_DILATION]
    assert pairs == [("good", b) for b in baselines] + [("good", "poor")] + [("poor", b) for b in baselines]


def test_dilations_are_tuned_on_training_fires_and_burnable_fuels(
    fires: tuple[Path, Path], samples: Samples, judged: list[Judged]
) -> None:
    predict, best = judged[1].contender.predict, {}
    for radius in CONFIG.dilation_radii:
        moved = replace(predict, dilation=Dilation(radius))
        best[radius] = growth_f1(*growth(Contender("", moved, samples), samples("train")), 0.5)
    assert predict.dilation.radius == max(best, key=best.__getitem__)


def test_dilations_are_tuned_on_as_many_fires_as_are_asked_for_evenly_spaced(
    fires: tuple[Path, Path], samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, seen = samples("train").fires, []

    def watched(batches: Iterable[FireBatch], *rest: Any) -> tuple[DilationPredictor, DilationPredictor]:
        held = list(batches)
        seen.append(sorted({int(fire) for batch in held for fire in batch.fire_index}))
        return fit_dilations(held, *rest)

    monkeypatch.setattr("tasks.fire.baselines.fit_dilations", watched)
    count = len(whole)
    assert count > 3
    for most in (1, 2, 3, count - 1, count, count + 1, None):
        few = baseline_contenders(*fires, samples, CONFIG.model_copy(update={"tuning_fires": most}))
        assert [contender.name for contender in few] == [COPY_LAST, DILATION, WIND_DILATION]
    spaced = [[whole[round(k * (count - 1) / (most - 1))] for k in range(most)] for most in (2, 3, count - 1)]
    assert seen == [whole[:1], *spaced, whole, whole, whole]


def test_batches_hold_one_fire_each_and_every_sample_once(samples: Samples) -> None:
    data, seen = samples("train"), []
    for batch in batches(data, 3):
        assert len(set(batch.fire_index.tolist())) == 1
        assert len(batch) <= 3
        seen += list(zip(batch.fire_index.tolist(), batch.step.tolist(), strict=True))
    assert seen == data.samples


def test_maps_show_fires_from_small_to_large(judged: list[Judged]) -> None:
    chosen = fires_of_different_size(judged[3], 3)
    test = judged[3].test
    sizes = [test.counts[test.fire == fire][:, :, 1].sum(axis=(1, 2)).max() for fire, _ in chosen]
    assert len(set(chosen)) == 3
    assert sizes == sorted(sizes)
    assert fires_of_different_size(judged[3], 0) == []


def test_attention_is_averaged_by_age_and_kind_of_token(judged: list[Judged], samples: Samples) -> None:
    contender = judged[3].contender
    found = collect_attention(contender, "test", samples("test").fires, 2)
    assert found is not None
    for kind in range(len(KINDS)):
        even, last = found.mean(0, kind), found.mean(1, kind)
        for length in range(1, 5):
            if found.tokens[kind, length]:
                assert even[length, :length] == pytest.approx(1 / length)
                assert last[length, :length] == pytest.approx([1] + [0] * (length - 1))
                assert np.isnan(even[length, length:]).all()
    valid = sum(int(batch.token_valid.sum()) for batch in batches(samples("test"), 4))
    assert found.tokens.sum() == valid
    assert collect_attention(judged[1].contender, "test", [0], 2) is None
    batch = load_batch(samples("test"), [0])
    kinds = token_kinds(batch)[0].unflatten(0, batch.grid)
    share = batch.fire[0, -1].unflatten(0, batch.grid)
    for row, column in np.ndindex(*batch.grid):
        beside = share[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].max() > 0
        expected = 1 if share[row, column] > 0.999 else 0 if beside else 2
        assert kinds[row, column] in (expected, -1)


def test_evaluation_needs_fires_that_grow(samples: Samples) -> None:
    nothing = SimpleNamespace(samples=[], spec=samples("train").spec, history=4)

    empty = Contender(
        "good", lambda b: skilled(b, 0.3, 0), lambda part: nothing if part == "validation" else samples(part), seed=0
    )
    with pytest.raises(ValueError, match="no validation fire grows"):
        judge(empty, CONFIG)
    nobody = judge(Contender("good", lambda b: skilled(b, 0.3, 0), lambda part: nothing, seed=0, threshold=0.5), CONFIG)
    with pytest.raises(ValueError, match="test part has no samples"):
        write_evaluation([nobody], CONFIG, Path("unused"))


def test_configuration_is_checked() -> None:
    with pytest.raises(ValueError, match=r"size_edges .* must grow"):
        EvaluationConfig(size_edges=(100, 100))
    with pytest.raises(ValueError, match="dilation_radii is empty"):
        EvaluationConfig(dilation_radii=())
    with pytest.raises(ValueError, match="threshold"):
        EvaluationConfig(threshold=1.5)

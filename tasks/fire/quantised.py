"""The stage that turns a trained EmberFormer into 8-bit integers for ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.wildfire import Int8Model
from storage.assets import Asset
from tasks.stage import Job, Label, StageResult, stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from models.fire.batch import FireBatch
    from tasks.fire.dataset import FireDataset
    from tasks.fire.released import FireRelease

TOLERANCE = 1e-3
"""Largest difference of logits between the file in floats and the model that it was made from."""
CHECKED = 8


@stage("fire_model_int8")
def fire_quantising(
    job: Job, *, model: Asset, cache: Asset, split: Asset, recipe: Int8Model, label: Label
) -> StageResult:
    """Write a model as 8-bit ONNX, with ranges of activations from training fires; compare it on validation fires.

    The file in floats must give the logits of torch, on samples with the shortest and the longest history and on the
    smallest and the largest grid among others; else the stage fails.
    """
    from models.fire.emberformer import EmberFormer
    from tasks.fire.onnx import HEADS, VARIABLE, FeatureGraph, OnnxEmberFormer, inputs_of
    from tasks.fire.released import FireRelease, open_part
    from tasks.quantise.onnx_file import quantise_onnx, write_float_onnx
    from tasks.quantise.onnx_run import cost
    from tasks.training.release import ONNX, WEIGHTS, write_computed_release

    release = FireRelease.from_release(model.folder)
    network = release.network
    if not isinstance(network, EmberFormer):
        raise ValueError(f"quantised.{recipe.model}: only an emberformer can be quantised; name another model")
    training, validation = (
        open_part(cache.folder, split.folder, part, release.recipe.inputs) for part in ("train", "validation")
    )
    job.progress(0, 4, "exporting")
    examples = _batches(training, recipe.calibration)
    largest = max(examples, key=lambda batch: (batch.fire.numel(), batch.domain.numel()))
    plain, small = job.workspace.scratch / "float.onnx", job.folder / ONNX
    write_float_onnx(plain, FeatureGraph(network).eval(), inputs_of(largest), ["features"], VARIABLE)
    apart = _apart(network, OnnxEmberFormer(network, plain), [*_batches(validation, CHECKED), *_extremes(validation)])
    if not apart <= TOLERANCE:
        raise ChildProcessError(f"the logits of the ONNX file are off by {apart:.2g}, more than {TOLERANCE:g}")
    job.progress(1, 4, "quantising")
    quantise_onnx(plain, small, map(inputs_of, examples))
    job.progress(2, 4, "comparing")
    write_computed_release(job.folder, model.folder, network, OnnxEmberFormer, lambda name: name.startswith(HEADS))
    before, after = (_growth_f1(FireRelease.from_release(place), validation) for place in (model.folder, job.folder))
    job.progress(4, 4)
    exact, found = cost(plain, inputs_of(largest)), cost(small, inputs_of(largest))
    return StageResult(
        counts={"bytes": small.stat().st_size, "bytes_exact": (model.folder / WEIGHTS).stat().st_size},
        metrics={
            "growth_f1": after,
            "growth_f1_exact": before,
            "logits_apart": apart,
            "milliseconds": found["milliseconds"],
            "milliseconds_exact": exact["milliseconds"],
            "peak_mb": found["peak_mb"],
        },
    )


def _batches(samples: FireDataset, count: int) -> list[FireBatch]:
    """Return samples at equal distances, each as a batch."""
    from tasks.fire.dataset import collate

    chosen = {k * len(samples) // count for k in range(count)}
    return [collate([samples.sample(index, 0)]) for index in sorted(chosen)]


def _extremes(samples: FireDataset) -> list[FireBatch]:
    """Return the batches with the shortest and longest history, and the smallest and largest grid."""
    from tasks.fire.dataset import collate

    every = [samples.sample(index, 0) for index in range(len(samples))]
    sizes = (lambda s: s.fire.shape[0], lambda s: s.grid[0] * s.grid[1])
    return [collate([choose(every, key=size)]) for size in sizes for choose in (min, max)]


def _apart(exact: nn.Module, found: nn.Module, batches: Sequence[FireBatch]) -> float:
    """Return the largest difference of logits."""
    import torch

    with torch.no_grad():
        return max(float((exact(batch).logits - found(batch).logits).abs().max()) for batch in batches)


def _growth_f1(release: FireRelease, samples: FireDataset) -> float:
    """Return the growth-F1 on all samples, at the model's threshold."""
    import torch

    from tasks.fire.dataset import collate
    from tasks.fire.scores import CALIBRATION_BINS, Scorer, measures

    scorer = Scorer()
    with torch.no_grad():
        for index in range(len(samples)):
            batch = collate([samples.sample(index, 0)])
            scorer.add_batch(release.predict(batch), batch)
    found = measures(scorer.histograms(), release.threshold, CALIBRATION_BINS)
    return float(found["growth_f1"][0])

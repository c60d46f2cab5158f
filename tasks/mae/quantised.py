"""The stage that turns a pretrained vision model into 8-bit integers for ONNX Runtime."""

from __future__ import annotations

from configs.weather_lm import Int8Vision
from storage.assets import Asset
from tasks.stage import Job, StageResult, stage

TOLERANCE = 1e-3
"""Largest difference between reconstructions of the file in floats and of the model, in deviations of a channel."""


@stage("weather_mae_int8")
def mae_quantising(job: Job, *, model: Asset, store: Asset, training_set: Asset, recipe: Int8Vision) -> StageResult:
    """Write a vision model as ONNX with 8-bit products of matrices; compare it on windows of the validation period.

    The file in floats must rebuild what torch does, else the stage fails.
    """
    import torch

    from models.weather.sat_swin_mae import SatSwinMAE, squared_errors, sum_by_channel
    from storage.window_dataset import WindowDataset
    from tasks.mae.evaluation import hidden_values
    from tasks.mae.objective import CONTEXT, MaskedWindows, collate
    from tasks.mae.onnx import OnnxSatSwinMAE, ReconstructionGraph
    from tasks.mae.released import MaeRelease
    from tasks.quantise.onnx_file import quantise_matrices, write_float_onnx
    from tasks.quantise.onnx_run import cost
    from tasks.training.release import ONNX, WEIGHTS, write_computed_release

    release = MaeRelease.from_release(model.folder)
    network, windows = release.network, WindowDataset(store.folder, training_set.folder, "validation")
    release.check(windows)
    if not len(windows):
        raise ValueError("the validation period has no usable windows to compare on; raise splits.validation_share")
    source = MaskedWindows(windows, network.units, release.recipe.mask_ratio, recipe.windows)
    batches = [collate([source.sample(k, k)]) for k in range(len(source))]
    hidden = hidden_values(release)
    data, weights = torch.cat([b["data"] for b in batches]), torch.cat([hidden.weights(b) for b in batches])

    def rebuilt(by: SatSwinMAE | OnnxSatSwinMAE) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([by(b["data"], b["mask"], **{name: b[name] for name in CONTEXT}) for b in batches])

    def error(prediction: torch.Tensor) -> float:
        """Return the mean over channels, as evaluations of the training do."""
        return float((squared_errors(prediction, data, weights) / sum_by_channel(weights)).nanmean())

    fed = {name: batches[0][name] for name in ("data", "mask", *CONTEXT)}
    plain, small = job.workspace.scratch / "float.onnx", job.folder / ONNX
    write_float_onnx(plain, ReconstructionGraph(network).eval(), fed, ["reconstruction"])
    exact = rebuilt(network)
    apart = float((rebuilt(OnnxSatSwinMAE(network, plain)) - exact).abs().max())
    if not apart <= TOLERANCE:
        raise ChildProcessError(f"reconstructions of the ONNX file are off by {apart:.2g}, more than {TOLERANCE:g}")
    quantise_matrices(plain, small)
    write_computed_release(job.folder, model.folder, network, OnnxSatSwinMAE, lambda name: False)
    found = rebuilt(MaeRelease.from_release(job.folder).network)
    costs, costs_exact = cost(small, fed), cost(plain, fed)
    return StageResult(
        counts={"bytes": small.stat().st_size, "bytes_exact": (model.folder / WEIGHTS).stat().st_size},
        metrics={
            "error": error(found),
            "error_exact": error(exact),
            "apart": apart,
            "milliseconds": costs["milliseconds"],
            "milliseconds_exact": costs_exact["milliseconds"],
            "peak_mb": costs["peak_mb"],
        },
    )

"""The stage that judges all trained fire models beside CopyLast and burnable dilation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configs.fire_evaluation import EvaluationConfig
from configs.wildfire import FireInputs
from storage.assets import Asset
from storage.fire_split import Part
from tasks.stage import Job, StageResult, stage

if TYPE_CHECKING:
    from tasks.fire.dataset import FireDataset
    from tasks.fire.evaluation import Contender


@stage("fire_evaluation_report")
def fire_evaluation_report(
    job: Job, *, cache: Asset, split: Asset, evaluation: EvaluationConfig, **models: Asset
) -> StageResult:
    """Score every model on the test fires, with intervals, roll-outs, calibration, maps, attention and curves."""
    from storage.token_cache import TokenCache
    from tasks.figures import save_figure
    from tasks.fire.baselines import DILATION, baseline_contenders
    from tasks.fire.evaluation import judge
    from tasks.fire.evaluation_report import write_evaluation
    from tasks.fire.released import open_part
    from tasks.training.curves import draw_curves
    from tasks.training.history import read_history

    def everything(part: Part) -> FireDataset:
        return open_part(cache.folder, split.folder, part, FireInputs())

    contenders = [
        *baseline_contenders(cache.folder, split.folder, everything, evaluation),
        *(_contender(cache.folder, split.folder, label, model) for label, model in models.items()),
    ]
    judged = []
    for contender in contenders:
        judged.append(judge(contender, evaluation))
        job.progress(len(judged), len(contenders))
    for label, model in models.items():
        save_figure(draw_curves(read_history(model.folder)), job.folder / f"curves_{label}.png")
    names = TokenCache.open(cache.folder).names
    scored = write_evaluation(judged, evaluation, job.folder, baseline=DILATION, names=names)
    metrics = {f"{model.name} growth_f1": model.scores["growth_f1"].value for model in scored}
    pictures = sorted(path.name for path in job.folder.glob("*.png"))
    return StageResult(counts={"models": len(scored), "runs": len(judged)}, metrics=metrics, pictures=pictures)


def _contender(cache: Path, split: Path, label: str, asset: Asset) -> Contender:
    """Return a trained model, shown what its recipe says."""
    from tasks.fire.evaluation import Contender
    from tasks.fire.released import FireRelease, open_part

    model = FireRelease.from_release(asset.folder)

    def samples(part: Part) -> FireDataset:
        return open_part(cache, split, part, model.recipe.inputs)

    attention = getattr(model.network, "attention", None)  # of networks that attend to the history
    seed = asset.manifest.config["seed"]
    return Contender(label.removesuffix(f"-{seed}"), model.predict, samples, seed=seed, attention=attention)

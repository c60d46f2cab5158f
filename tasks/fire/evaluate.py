"""The stage that judges all trained fire models beside CopyLast and burnable dilation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from configs.fire_evaluation import EvaluationConfig
from configs.wildfire import FireInputs
from storage.assets import Asset
from storage.fire_split import Part, Statistics
from tasks.stage import Job, StageResult, stage

if TYPE_CHECKING:
    from tasks.fire.dataset import FireDataset
    from tasks.fire.evaluation import Contender


TRAINED = "fire_model"
FIRST_PICTURES = ("predictions.png", "by_step.png", "rollout.png", "precision_recall.png", "calibration.png")


@dataclass(frozen=True)
class Fires:
    """The fires that models are judged on."""

    cache: Path
    split: Path
    on: Path | None
    """A token cache whose fires take the place of the test fires."""

    def samples(self, inputs: FireInputs, part: Part) -> FireDataset:
        """Return the samples of a part, whole crops, with what a model is shown."""
        from tasks.fire.released import open_part

        if part == "test" and self.on is not None:
            return open_part(self.on, Statistics.load(self.split), "all", inputs)
        return open_part(self.cache, self.split, part, inputs)


@stage("fire_evaluation_report")
def fire_evaluation_report(
    job: Job, *, cache: Asset, split: Asset, evaluation: EvaluationConfig, on: Asset | None = None, **models: Asset
) -> StageResult:
    """Score every model on the test fires, with intervals, roll-outs, calibration, maps, attention and curves.

    With `on`, a token cache of another archive, on all of its fires; what has to be tuned is tuned where it always is.
    """
    from storage.token_cache import TokenCache
    from tasks.figures import save_figure
    from tasks.fire.baselines import baseline_contenders
    from tasks.fire.evaluation import judge
    from tasks.fire.evaluation_report import write_evaluation
    from tasks.fire.other_archives import require_unknown_fires
    from tasks.training.curves import draw_curves
    from tasks.training.history import read_history

    fires = Fires(cache.folder, split.folder, on.folder if on else None)
    if on:
        require_unknown_fires(on.folder, cache.folder, split.folder)
    trained = [_contender(fires, label, model) for label, model in models.items()]
    baselines = baseline_contenders(cache.folder, split.folder, partial(fires.samples, FireInputs()), evaluation)
    contenders = [*baselines, *trained]
    judged = []
    for contender in contenders:
        judged.append(judge(contender, evaluation))
        job.progress(len(judged), len(contenders))
    for label, model in models.items():
        if model.kind == TRAINED:
            save_figure(draw_curves(read_history(model.folder)), job.folder / f"curves_{label}.png")
    names = TokenCache.open(fires.on or fires.cache).names
    scored = write_evaluation(judged, evaluation, job.folder, names=names)
    metrics = {f"{model.name} growth_f1": model.scores["growth_f1"].value for model in scored}
    pictures = {path.name for path in job.folder.glob("*.png")}
    return StageResult(
        counts={"models": len(scored), "runs": len(judged)},
        metrics=metrics,
        pictures=[*(name for name in FIRST_PICTURES if name in pictures), *sorted(pictures.difference(FIRST_PICTURES))],
    )


def _contender(fires: Fires, label: str, asset: Asset) -> Contender:
    """Return a trained model, shown what its recipe says."""
    from tasks.fire.evaluation import Contender
    from tasks.fire.other_archives import require_same_pixels
    from tasks.fire.released import FireRelease

    model = FireRelease.from_release(asset.folder)
    if fires.on is not None:
        require_same_pixels(fires.on, model.spec.cell_metres)
        model.samples(fires.on)  # refuses other bands
    attention = getattr(model.network, "attention", None)  # of networks that attend to the history
    name, _, seed = label.rpartition("-")
    samples = partial(fires.samples, model.recipe.inputs)
    return Contender(name, model.predict, samples, seed=int(seed), attention=attention)

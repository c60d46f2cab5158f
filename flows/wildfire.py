"""The `wildfire` pipeline: raw fire archives to a token cache, and to trained and judged spread models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from configs.fire_data import Decoding, FireArchive, Tokens
from configs.fire_evaluation import EvaluationConfig
from configs.fire_sample import SampleFires
from configs.wildfire import FireRecipe, WildfireConfig
from flows.evaluation import Given
from flows.pipelines import Pipeline
from storage.raw import FoundFiles, visible
from tasks.fire.archive import archive_files, archive_names
from tasks.fire.cache import fire_cache
from tasks.fire.evaluate import fire_evaluation_report
from tasks.fire.quantised import fire_quantising
from tasks.fire.records import fire_records
from tasks.fire.report import fire_data_report
from tasks.fire.split import fire_split
from tasks.fire.training import fire_training
from tasks.samples.fire import fire_sample
from tasks.stage import Label, raw_input
from tasks.training.launch import train_all


def wildfire(config: WildfireConfig) -> Any:
    """Wire the stages; every name below is an asset."""
    on_broken = config.source.on_broken if isinstance(config.source, FireArchive) else "error"
    raw = raw_archive(config)
    records = fire_records(
        raw=raw,
        names=archive_names(raw),
        decoding=config.decoding,
        tokens=config.tokens,
        on_broken=on_broken,
    )
    cache = fire_cache(records=records)
    split = fire_split(cache=cache, splits=config.splits)
    fire_data_report(cache=cache, split=split)
    if not config.trainings():
        return split

    def training(label: Label, seed: int, recipe: FireRecipe) -> Any:
        return fire_training(
            cache=cache, split=split, recipe=recipe, seed=seed, execution=config.execution, label=label
        )

    models = train_all(config.trainings(), config.execution, training)
    models |= _quantised(config, cache, split, models)
    return fire_evaluation_report(cache=cache, split=split, evaluation=config.evaluation, **models)


def _quantised(config: WildfireConfig, cache: Any, split: Any, models: Mapping[str, Any]) -> dict[str, Any]:
    """Turn models into 8 bits, each with all of its seeds."""
    found: dict[str, Any] = {}
    for name, recipe in config.quantised.items():
        for label, model in models.items():
            trained, _, seed = label.rpartition("-")
            if trained == recipe.model:
                new = Label(f"{name}-{seed}")
                found[new] = fire_quantising(model=model, cache=cache, split=split, recipe=recipe, label=new)
    return found


def raw_archive(config: WildfireConfig) -> Any:
    """Return the raw archive that the configured source has or makes."""
    match config.source:
        case SampleFires() as source:
            return fire_sample(source=source)
        case FireArchive() as source:
            return raw_input("fire_archive", visible_archive(source.path))


def visible_archive(path: str) -> FoundFiles:
    """Return the files of a fire archive that are not hidden."""
    return visible(archive_files(path), below=Path(path).expanduser().absolute())


def cache_of(archive: FoundFiles, decoding: Decoding, patch: int) -> Any:
    """Return the token cache of an archive, made as that of a model was."""
    raw = raw_input("fire_archive", archive)
    records = fire_records(
        raw=raw, names=archive_names(raw), decoding=decoding, tokens=Tokens(patch=patch), on_broken="skip"
    )
    return fire_cache(records=records)


def judge_model(given: Given) -> Callable[[], Any]:
    """Judge a fire model on all fires of another archive or token cache, or on its own test fires again."""
    cache, split = given.of_model("fire_cache"), given.of_model("fire_split")
    if given.raw is None:
        on = given.asset("fire_cache")
    else:
        from tasks.fire.other_archives import require_pixels_as_told
        from tasks.fire.released import FireRelease

        release = FireRelease.from_release(given.model.folder)
        on = cache_of(visible_archive(given.raw), release.decoding, release.spec.patch)
        for asset in (on, cache):
            asset.fetch()
        require_pixels_as_told(on.folder, cache.folder)
    trained = given.model if given.model.kind == fire_training.kind else given.of_model(fire_training.kind)
    config = trained.manifest.config
    name, settings = given.in_report(fire_evaluation_report.kind, "evaluation") or (
        f"{config['recipe']['model']['kind']}-{config['seed']}",
        {},
    )
    evaluation, models = EvaluationConfig.model_validate(settings), {name: given.model}
    if on.fingerprint == cache.fingerprint:
        return partial(fire_evaluation_report, cache=cache, split=split, evaluation=evaluation, **models)
    return partial(fire_evaluation_report, cache=cache, split=split, evaluation=evaluation, on=on, **models)


PIPELINE = Pipeline(
    "wildfire",
    "Raw fire archives to trained and judged spread models",
    WildfireConfig,
    wildfire,
    judges={fire_training.kind: judge_model, fire_quantising.kind: judge_model},
)

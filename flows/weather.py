"""The `weather` pipeline: raw ERA5 to a verified window store, and to models that tell of its weather and answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from configs.weather import ArcoSource, CdsSource, FilesSource, SampleSource
from configs.weather_lm import (
    CaptionFiles,
    JoinConfig,
    LanguageRecipe,
    MaeRecipe,
    NarrationEvaluation,
    NarratorRecipe,
    SampleCaptions,
    SampleText,
)
from configs.weather_pipeline import WeatherConfig
from flows.answering import answerers
from flows.evaluation import Given
from flows.pipelines import Pipeline
from flows.unseen import require_unseen_weather
from storage.assets import Asset
from storage.lineage import short_name
from storage.raw import find_files
from tasks.answering.report import answer_report
from tasks.captions.gather import caption_files, find_captions, named_columns, weather_captions
from tasks.era5.download import as_of, era5_arco, era5_cds
from tasks.era5.ingest import era5_windows
from tasks.era5.inputs import asked_for, may_be_netcdf, what_it_is
from tasks.era5.prepare import era5_training_set
from tasks.era5.report import era5_report
from tasks.era5.scan import era5_catalog
from tasks.mae.quantised import mae_quantising
from tasks.mae.report import mae_report
from tasks.mae.training import mae_training
from tasks.narration.language import language_training
from tasks.narration.language_report import language_report
from tasks.narration.packed import narrator_packing
from tasks.narration.report import narration_report
from tasks.narration.training import narrator_training
from tasks.samples.generate import era5_sample, weather_text_sample
from tasks.samples.weather_regions import REGIONS
from tasks.stage import Label, raw_input, side_by_side
from tasks.training.launch import train_all, trainings_at_once


def weather(config: WeatherConfig) -> Any:
    """Wire the stages; every name below is an asset."""
    raw = raw_files(config, today=datetime.now(UTC).date())
    captions = weather_captions(**_captions(config, raw), label=Label("windows")) if _reads_captions(config) else None
    on_bad_file = config.source.on_bad_file if isinstance(config.source, FilesSource) else "error"
    catalog = era5_catalog(raw=raw, on_bad_file=on_bad_file, **asked_for(raw, config.recipe))
    windows = era5_windows(raw=raw, catalog=catalog, recipe=config.recipe, layout=config.store)
    training_set = era5_training_set(store=windows, windows=config.windows, splits=config.splits)
    era5_report(store=windows, training_set=training_set, channels=config.report_channels)
    if config.mae is None:
        return training_set
    if not config.trainings():
        return _answers(config, windows, training_set, _vision(config, windows, training_set))
    mae, languages = side_by_side(
        [
            lambda: _vision(config, windows, training_set),
            lambda: _languages(config, captions=captions, training_set=training_set),
        ],
        trainings_at_once(config.execution),
    )
    _answers(config, windows, training_set, mae)
    return _narrators(config, languages, windows, training_set, captions, mae)


def _vision(config: WeatherConfig, store: Any, training_set: Any) -> Any:
    """Pretrain the vision model, compare it with its baselines, and turn it into 8 bits where that is asked for."""
    assert config.mae is not None
    mae = mae_training(store=store, training_set=training_set, recipe=config.mae, execution=config.execution)
    mae_report(store=store, training_set=training_set, model=mae, windows=config.mae.report_windows)
    if config.mae_int8 is not None:
        mae_quantising(model=mae, store=store, training_set=training_set, recipe=config.mae_int8)
    return mae


def _answers(config: WeatherConfig, store: Any, training_set: Any, mae: Any) -> Any:
    """Ask about windows, and train and judge what answers by what the vision model sees; else return that model."""
    if config.questions is None:
        return mae
    from tasks.weather_questions.questions import weather_questions  # it brings torch, which other plans do without

    questions = weather_questions(
        store=store, training_set=training_set, mae=mae, recipe=config.questions.recipe, execution=config.execution
    )
    models = answerers(config.questions.answering, questions, mae, config.execution)
    return answer_report(
        questions=questions,
        shards=None,
        index=None,
        store=store,
        training_set=training_set,
        evaluation=config.questions.evaluation,
        **models,
    )


def _narrators(
    config: WeatherConfig, languages: Mapping[str, Any], store: Any, training_set: Any, captions: Any, mae: Any
) -> Any:
    """Train every narrator, pack some of them, and judge them; `languages` are those that were trained here."""
    assert config.captions is not None
    data = {
        "store": store,
        "training_set": training_set,
        "captions": captions,
        "mae": mae,
        "join": config.captions.join,
    }

    def training(label: Label, seed: int, recipe: NarratorRecipe) -> Any:
        return narrator_training(
            **data,
            language=languages.get(recipe.language),
            language_recipe=config.languages[recipe.language],
            recipe=recipe,
            seed=seed,
            execution=config.execution,
            label=label,
        )

    narrators = train_all(config.trainings(), config.execution, training)
    narrators |= _packed(config, narrators, languages, data)
    return narration_report(
        **data,
        evaluation=config.evaluation,
        **{f"language {name}": asset for name, asset in languages.items()},
        **narrators,
    )


def _packed(
    config: WeatherConfig, narrators: Mapping[str, Any], languages: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """Pack narrators into few bits, each with all of its seeds."""
    found: dict[str, Any] = {}
    for name, packed in config.packed.items():
        for trained, seed, recipe in config.trainings():
            if trained == packed.narrator:
                label = Label(f"{name}-{seed}")
                model, language = narrators[f"{trained}-{seed}"], languages.get(recipe.language)
                found[label] = narrator_packing(
                    **data, model=model, language=language, recipe=packed.recipe, label=label
                )
    return found


def _languages(config: WeatherConfig, **data: Any) -> dict[str, Any]:
    """Train the language models that are to be trained here."""
    used = {recipe.language: config.languages[recipe.language] for _, _, recipe in config.trainings()}
    return {name: _language(config, name, recipe, **data) for name, recipe in used.items() if recipe.text}


def _language(config: WeatherConfig, name: str, recipe: LanguageRecipe, captions: Any, training_set: Any) -> Any:
    """Train a language model on the captions of the training period, or on texts about other generated weather."""
    assert recipe.text is not None
    if isinstance(recipe.text.text, SampleText):
        texts = weather_text_sample(source=recipe.text.text.weather)
        captions = weather_captions(raw=texts, names={}, columns={}, boxes=REGIONS, label=Label(name))
        training_set = None
    return language_training(
        captions=captions,
        training_set=training_set,
        recipe=recipe,
        execution=config.execution,
        label=Label(name),
    )


def _reads_captions(config: WeatherConfig) -> bool:
    """Whether captions are read: files of the user's always, so that they are checked, generated ones if needed."""
    own = config.captions is not None and isinstance(config.captions.source, CaptionFiles)
    return own or bool(config.trainings())


def _captions(config: WeatherConfig, raw: Any) -> dict[str, Any]:
    """Return what the captions stage is called with: the sample's own files, or the configured ones."""
    assert config.captions is not None
    match config.captions.source:
        case SampleCaptions():
            return {"raw": raw, "names": {}, "columns": {}, "boxes": REGIONS}
        case CaptionFiles() as source:
            files = raw_input("caption_files", find_captions(source))
            call = {"raw": files, "names": caption_files(files), "columns": named_columns(source), "boxes": {}}
            if source.regions:
                field = "captions.source.regions"
                call["regions"] = raw_input(
                    "region_boxes", find_files([source.regions], lambda path: True, field=field)
                )
            return call


def raw_files(config: WeatherConfig, today: date) -> Any:
    """Return the raw NetCDF files that the configured source has or makes."""
    match config.source:
        case SampleSource() as source:
            return era5_sample(source=source)
        case FilesSource() as source:
            return raw_input("era5_files", find_files(source.paths, may_be_netcdf, what_it_is, source.on_bad_file))
        case CdsSource() as source:
            return era5_cds(source=source.until(today), as_of=as_of(source.until(today), today))
        case ArcoSource() as source:
            return era5_arco(source=source, as_of=as_of(source, today))


def judge_vision(given: Given) -> Callable[[], Any]:
    """Judge a vision model on the test period of another training set."""
    trained = given.model if given.model.kind == mae_training.kind else given.of_model(mae_training.kind)
    recipe = MaeRecipe.model_validate(trained.manifest.config["recipe"])
    store, training_set = _windows(given)
    return partial(mae_report, store=store, training_set=training_set, model=given.model, windows=recipe.report_windows)


def judge_language(given: Given) -> Callable[[], Any]:
    """Judge a language model on other captions."""
    return partial(language_report, model=given.model, captions=given.asset("weather_captions"))


def judge_narrator(given: Given) -> Callable[[], Any]:
    """Judge a narrator on the test period of another training set, by captions of that period."""
    model = given.model
    trained = [record.kind for record in model.manifest.inputs if record.kind == language_training.kind]
    name, settings = given.in_report(narration_report.kind, "evaluation") or ("narrator", {})
    store, training_set = _windows(given)
    return partial(
        narration_report,
        store=store,
        training_set=training_set,
        captions=given.asset("weather_captions"),
        mae=given.of_model("weather_mae"),
        join=JoinConfig.model_validate(model.manifest.config["join"]),
        evaluation=NarrationEvaluation.model_validate(settings),
        **{kind: given.of_model(kind) for kind in trained},
        **{name: model},
    )


def _windows(given: Given) -> tuple[Asset, Asset]:
    """Return a store and a training set that belong together."""
    store, training_set = given.asset("era5_windows"), given.asset("era5_training_set")
    if all(record.fingerprint != store.fingerprint for record in training_set.manifest.inputs):
        raise ValueError(
            f"{short_name(training_set)} was not made from {short_name(store)}; name the training set alone with --on"
        )
    require_unseen_weather(given.store, given.model, training_set)
    return store, training_set


PIPELINE = Pipeline(
    "weather",
    "Raw ERA5 to verified training windows, and to the weather in words",
    WeatherConfig,
    weather,
    judges={
        mae_training.kind: judge_vision,
        mae_quantising.kind: judge_vision,
        language_training.kind: judge_language,
        narrator_training.kind: judge_narrator,
        narrator_packing.kind: judge_narrator,
    },
)

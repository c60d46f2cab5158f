"""The `trm_vlm` pipeline: image URLs with questions and answers, e.g. PixMo, to shards, and to decoders that answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from configs.answering import AnswerEvaluation, AnsweringRecipe
from configs.trm_vlm import TrmVlmConfig
from flows.answering import answerers
from flows.evaluation import Given
from flows.image_text import raw_lists, with_shards
from flows.pipelines import Pipeline
from flows.unseen import require_unseen_images, require_unseen_weather
from storage.assets import Asset
from storage.lineage import all_made_from, short_name
from tasks.alignment.questions import image_questions
from tasks.alignment.report import alignment_report
from tasks.alignment.training import alignment_training
from tasks.answering.packed import answerer_packing
from tasks.answering.report import answer_report
from tasks.answering.training import answerer_training
from tasks.stage import side_by_side

ENCODERS = ("image_encoder", "weather_mae")
"""Kinds of what sees for an answerer."""


def trm_vlm(config: TrmVlmConfig) -> Any:
    """Wire the stages; every name below is an asset. Mode `metadata` ends with the lists."""

    def go_on(shards: Any, index: Any) -> Any:
        other = config.alignment_data
        if config.alignment is None or other is None:
            return _models(config, shards, index, shards, index)
        return with_shards(other, raw_lists(other), partial(_models, config, shards, index))

    return with_shards(config, raw_lists(config), go_on)


def _models(config: TrmVlmConfig, shards: Any, index: Any, seen: Any, seen_index: Any) -> Any:
    """Align an encoder with what is said of `seen`; then train and judge decoders that answer about `shards`."""
    if config.alignment is None:
        return index
    encoder = alignment_training(shards=seen, index=seen_index, recipe=config.alignment, execution=config.execution)
    report = partial(alignment_report, shards=seen, index=seen_index, encoder=encoder)
    if config.answering is None:
        return report()
    return side_by_side([report, partial(_answers, config, config.answering, shards, index, encoder)], 2)[1]


def _answers(config: TrmVlmConfig, recipe: AnsweringRecipe, shards: Any, index: Any, encoder: Any) -> Any:
    questions = image_questions(shards=shards, index=index, encoder=encoder, execution=config.execution)
    models = answerers(recipe, questions, encoder, config.execution)
    return answer_report(questions=questions, shards=shards, index=index, evaluation=config.evaluation, **models)


def judge_answerer(given: Given) -> Callable[[], Any]:
    """Judge an answerer on the test split of another question set."""
    name, settings = given.in_report(answer_report.kind, "evaluation") or ("model", {})
    questions = given.asset("question_set")
    _require_own_encoder(given, questions)
    for index in all_made_from(given.store, questions, "image_text_index"):
        require_unseen_images(given.store, given.model, index)
    for training_set in all_made_from(given.store, questions, "era5_training_set"):
        require_unseen_weather(given.store, given.model, training_set)
    return partial(
        answer_report,
        questions=questions,
        shards=None,
        index=None,
        evaluation=AnswerEvaluation.model_validate(settings),
        **{name: given.model},
    )


def _require_own_encoder(given: Given, questions: Asset) -> None:
    """Raise a `ValueError` where questions are kept with what another encoder saw than that of the model."""
    trained = given.model if given.model.kind == answerer_training.kind else given.of_model(answerer_training.kind)
    own = given.of_model(questions.kind)
    seen, expected = (
        {record.fingerprint for record in asset.manifest.inputs if record.kind in ENCODERS}
        for asset in (questions, own)
    )
    if seen != expected and trained.manifest.config["design"]["vision"]:
        raise ValueError(
            f"{short_name(questions)} keeps what another encoder saw than the one of {short_name(own)}, which "
            f"{short_name(given.model)} learned to read; make the questions with that encoder"
        )


def judge_encoder(given: Given) -> Callable[[], Any]:
    """Judge an image encoder on the test split of another index."""
    index = given.asset("image_text_index")
    require_unseen_images(given.store, given.model, index)
    return partial(
        alignment_report,
        shards=given.asset("image_text_shards"),
        index=index,
        encoder=given.model,
    )


PIPELINE = Pipeline(
    "trm_vlm",
    "Image URLs with questions to verified WebDataset shards, to an aligned encoder, and to decoders that answer",
    TrmVlmConfig,
    trm_vlm,
    judges={
        alignment_training.kind: judge_encoder,
        answerer_training.kind: judge_answerer,
        answerer_packing.kind: judge_answerer,
    },
)

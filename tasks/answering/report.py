"""The stage that judges answerers on the test split, and compares them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from configs.answering import AnswerEvaluation
from storage.assets import Asset
from storage.files import write_atomic
from tasks.stage import Job, StageResult, stage

TRAINED = "answerer"
UNSEEING = ("blind", "majority")
"""What answers without looking, in the tables of gains."""
COLUMNS = (
    "decoder", "seeds", "parameters", "gflops", "exact", "f1", "numeric", "shuffled", "gain_over_blind", "low", "high",
    "gain_over_majority",
)  # fmt: skip
KIND_COLUMNS = ("decoder", "kind", "questions", "exact", "peer", "peer_exact", "gain", "low", "high")


@stage("answer_report")
def answer_report(
    job: Job,
    *,
    questions: Asset,
    shards: Asset | None,
    index: Asset | None,
    evaluation: AnswerEvaluation,
    store: Asset | None = None,
    training_set: Asset | None = None,
    **models: Asset,
) -> StageResult:
    """Ask every model the questions of the test split: exact match, token F1 and numbers, by kind of question, against
    the majority's answer, a blind model and other images; by depth of recursion, parameters and operations.

    Trained models are named `decoder-seed`, and the seeds of a decoder are judged together. What was asked about is
    drawn where it is known: images of `shards` and `index`, or windows of `store` and `training_set`.
    """
    from tasks.answering import evaluation as judged
    from tasks.answering.released import AnswererRelease
    from tasks.answering.samples import Questions

    runs: dict[str, list[Any]] = {}
    tables: dict[str, Any] = {}
    majority: judged.Answered | None = None
    for number, (label, asset) in enumerate(models.items()):
        release = AnswererRelease.from_release(asset.folder)
        source = Questions(questions.folder, "test", release.asking, evaluation.questions)
        if not len(source):
            raise ValueError("the test split has no questions; raise splits.test_share")
        if majority is None:
            training = judged.Majority(source.set.asked("train"))
            majority = judged.Answered.of(source.asked, [training.answer(one) for one in source.asked])
        true, other = (job.progress_in(2 * number + part, 2 * len(models)) for part in range(2))
        answered = judged.answer_questions(release, source, evaluation, true)
        shuffled = judged.answer_questions(release, source, evaluation, other, shuffled=True)
        name = label.rpartition("-")[0] if asset.kind == TRAINED else label
        runs.setdefault(name, []).append(answered)
        table = tables.setdefault(name, {"vision": release.design.vision, "seeds": {}, **_cost(release, source)})
        table["seeds"][label] = {
            "scores": judged.scores_of(answered),
            "shuffled": judged.scores_of(shuffled)[judged.ALL],
            "by_depth": judged.exact_by_depth(release, source, evaluation.depths),
            "gain_over_shuffled": judged.gain(answered.exact(), shuffled.exact(), source.asked, evaluation),
        }
        _write_answers(job, label, answered)
    assert majority is not None, "there is a model"
    scores = {"majority": judged.scores_of(majority), "decoders": tables}
    _compare(tables, runs, majority, evaluation)
    write_atomic(job.folder / "scores.json", json.dumps(scores, indent=1))
    write_atomic(job.folder / "scores.csv", _csv(COLUMNS, _rows(tables)))
    write_atomic(job.folder / "by_kind.csv", _csv(KIND_COLUMNS, _rows_by_kind(tables)))
    first_seeds = {name: of_seeds[0] for name, of_seeds in runs.items()}
    pictures = _draw_asked(job, first_seeds, _pictures_of(shards, index, store, training_set), evaluation)
    pictures += _draw(job, tables, scores, models)
    return StageResult(
        counts={"models": len(models), "questions": len(majority.asked)},
        metrics=_metrics(tables, scores["majority"][judged.ALL]["exact"]),
        pictures=pictures,
    )


def _cost(release: Any, source: Any) -> dict[str, float]:
    """Return what a model has, and the operations of reading one question with its answer, in 10^9."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tasks.answering.samples import collate

    batch = collate([source.sample(0, 0)])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        release.network(batch)
    return {"parameters": _parameters(release.network), "gflops": counter.get_total_flops() / 1e9}


def _parameters(network: Any) -> int:
    """Count what was trained: parameters, and weights and biases that lie packed in buffers; tied ones once."""
    from models.packed import Packed, PackedLinear, PackedRows

    count = sum(p.numel() for p in network.parameters())
    for module in network.modules():
        if isinstance(module, PackedLinear):
            count += module.out_features * module.in_features
        elif isinstance(module, PackedRows):
            count += len(module) * module.columns
        if isinstance(module, Packed) and (bias := getattr(module, "bias", None)) is not None:
            count += bias.numel()
    return count


def _compare(tables: dict[str, Any], runs: Mapping[str, Sequence[Any]], majority: Any, how: AnswerEvaluation) -> None:
    """Set every decoder, the mean over its seeds, against the majority and all others, and by kind of question against
    the better of those that do not look; the first that is blind is named so.
    """
    from tasks.answering.evaluation import gain, gains_by_kind, mean_exact

    exact = {name: mean_exact(answered) for name, answered in runs.items()}
    blind = next((name for name, table in tables.items() if not table["vision"]), None)
    for name, table in tables.items():
        others = {"majority": majority.exact()}
        others |= {"blind" if other == blind else other: values for other, values in exact.items() if other != name}
        table["gains"] = {other: gain(exact[name], values, majority.asked, how) for other, values in others.items()}
        unseeing = {other: others[other] for other in UNSEEING if other in others}
        table["by_kind"] = gains_by_kind(exact[name], unseeing, majority.asked, how)


def _metrics(tables: Mapping[str, Any], majority: float | None) -> dict[str, float]:
    found = {} if majority is None else {"exact_majority": majority}
    for name, table in tables.items():
        values = _all_seeds(table, "exact")
        if values:
            found[f"exact_{name}"] = float(np.mean(values))
        for other, gain in table["gains"].items():
            if gain is not None and other == "blind":
                found[f"gain_over_blind_{name}"] = gain["value"]
    return found


def _all_seeds(table: Mapping[str, Any], score: str) -> list[float]:
    values = [seed["scores"]["all"][score] for seed in table["seeds"].values()]
    return [value for value in values if value is not None]


def _write_answers(job: Job, label: str, answered: Any) -> None:
    rows = [
        {"key": one.key, "row": one.row, "question": one.question, "truth": one.answer, "answer": answer}
        for one, answer in zip(answered.asked, answered.answers, strict=True)
    ]
    write_atomic(job.folder / f"{label}.json", json.dumps(rows, indent=1, ensure_ascii=False))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


Row = list[str | float | None]


def _csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow("" if value is None else value if isinstance(value, str) else f"{value:.6g}" for value in row)
    return text.getvalue()


def _rows(tables: Mapping[str, Any]) -> Iterator[Row]:
    for name, table in tables.items():
        means = [_mean(_all_seeds(table, score)) for score in ("exact", "f1", "numeric")]
        of_others = [seed["shuffled"]["exact"] for seed in table["seeds"].values()]
        blind, majority = (table["gains"].get(other) or {} for other in UNSEEING)
        row: Row = [name, len(table["seeds"]), table["parameters"], table["gflops"], *means]
        row += [_mean([value for value in of_others if value is not None])]
        row += [blind.get("value"), blind.get("low"), blind.get("high"), majority.get("value")]
        yield row


def _rows_by_kind(tables: Mapping[str, Any]) -> Iterator[Row]:
    for name, table in tables.items():
        for kind, found in table["by_kind"].items():
            gain = found["gain"]
            row: Row = [name, kind, found["questions"], found["exact"], found["peer"], found["peer_exact"]]
            yield [*row, gain["value"], gain["low"], gain["high"]]


def _pictures_of(
    shards: Asset | None, index: Asset | None, store: Asset | None, training_set: Asset | None
) -> Any | None:
    """Return what gives a picture of what a question is about; None where that is not known."""
    from tasks.answering.pictures import ImagePictures, WindowPictures

    if shards is not None and index is not None:
        return ImagePictures(shards.folder, index.folder)
    if store is not None and training_set is not None:
        return WindowPictures(store.folder, training_set.folder)
    return None


def _draw_asked(job: Job, answered: Mapping[str, Any], pictures: Any | None, evaluation: AnswerEvaluation) -> list[str]:
    """Draw some of what was asked about, with questions and answers; return the picture's name, if there is one."""
    from tasks.answering.pictures import draw_answers
    from tasks.figures import save_figure

    if pictures is None:
        return []
    save_figure(draw_answers(answered, pictures, evaluation.pictures), job.folder / "answers.png")
    return ["answers.png"]


def _draw(job: Job, tables: Mapping[str, Any], scores: Mapping[str, Any], models: Mapping[str, Asset]) -> list[str]:
    """Draw scores and curves; return the pictures' names."""
    from tasks.answering.pictures import draw_by_kind, draw_costs, draw_depths
    from tasks.figures import save_figure
    from tasks.training.curves import draw_curves
    from tasks.training.history import read_history

    save_figure(draw_by_kind(scores), job.folder / "by_kind.png")
    save_figure(draw_costs(tables), job.folder / "costs.png")
    names = ["by_kind.png", "costs.png"]
    if any(seed["by_depth"] for table in tables.values() for seed in table["seeds"].values()):
        save_figure(draw_depths(tables), job.folder / "depths.png")
        names.append("depths.png")
    for label, asset in models.items():
        if asset.kind == TRAINED:
            save_figure(draw_curves(read_history(asset.folder)), job.folder / f"curves_{label}.png")
            names.append(f"curves_{label}.png")
    return names

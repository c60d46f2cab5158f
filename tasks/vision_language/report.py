"""The stage that judges vision-language models on the test split."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.microvlm import VlmEvaluation
from storage.assets import Asset
from storage.files import write_atomic
from tasks.stage import Job, StageResult, stage

TRAINED = "microvlm_model"
COLUMNS = (
    "model", "nats", "nats, other image", "nats, no image", "gap", "gap low", "gap high",
    "recalled", "recalled, other memory", "recalled, places exchanged", "recalled, no memory", "R@1 text", "R@1 image",
    "chance", "BLEU", "CIDEr-D", "counts right", "counts right, shuffled",
)  # fmt: skip


@stage("microvlm_report")
def vlm_report(
    job: Job,
    *,
    shards: Asset,
    index: Asset,
    sample: Asset | None,
    evaluation: VlmEvaluation,
    **models: Asset,
) -> StageResult:
    """Compare models: likelihood with true, other and no images, retrieval, captions, and what the memory recalls; show
    captions, attention and curves.

    `sample` is the generated data that the shards were made of, by which captions are checked.
    """
    from tasks.figures import save_figure
    from tasks.training.curves import draw_curves
    from tasks.training.history import read_history
    from tasks.vision_language.evaluation import evaluate_vlm
    from tasks.vision_language.pictures import draw_captions, draw_scores
    from tasks.vision_language.released import VlmRelease
    from tasks.vision_language.samples import Asking, VlmSamples

    scene_of_row = _scenes(sample)
    tables: dict[str, Any] = {}
    for number, (name, asset) in enumerate(models.items()):
        release = VlmRelease.from_release(asset.folder)
        design = release.design
        asking = Asking(
            release.tokens, design.phrases, evaluation.episode, evaluation.longest, design.model.recall.steps
        )
        samples = VlmSamples(shards.folder, index.folder, "test", release.network.vision.square, asking)
        tables[name], told = evaluate_vlm(
            release, samples, scene_of_row, evaluation, job.progress_in(number, len(models))
        )
        shown = told[:: max(1, len(told) // evaluation.pictures)][: evaluation.pictures]
        rows = [(one.sample.image, one.text, one.sample.text) for one in shown]
        save_figure(draw_captions(rows), job.folder / f"{name}.png")
        texts = [{"row": one.sample.row, "written": one.text, "listed": one.sample.text} for one in told]
        write_atomic(job.folder / f"{name}.json", json.dumps(texts, indent=1, ensure_ascii=False))
        _draw_looks(job.folder / f"{name}_attention", release, samples)
        if asset.kind == TRAINED:
            save_figure(draw_curves(read_history(asset.folder)), job.folder / f"curves_{name}.png")
    write_atomic(job.folder / "scores.json", json.dumps(tables, indent=1))
    write_atomic(job.folder / "scores.csv", _csv(tables))
    save_figure(draw_scores(tables), job.folder / "likelihoods.png")
    curves = [path.name for path in sorted(job.folder.glob("curves_*.png"))]
    looks = [path.name for path in sorted(job.folder.glob("*_attention*.png"))]
    return StageResult(
        counts={"models": len(tables)},
        metrics={
            f"{metric}_{name}": table[metric]["value"]
            for name, table in tables.items()
            for metric in ("vision_gap", "recall_gap")
        },
        pictures=[*(f"{n}.png" for n in tables), "likelihoods.png", *looks, *curves],
    )


def _draw_looks(path: Path, release: Any, samples: Any) -> None:
    """Draw what the model looks at in the first episode of a split, as files that begin with `path`."""
    from tasks.figures import save_figure
    from tasks.vision_language.attention import text_attention
    from tasks.vision_language.pictures import draw_attention, draw_text_attention
    from tasks.vision_language.samples import collate

    batch = collate([samples.sample(k, k) for k in range(samples.episode)])
    save_figure(draw_attention(release.network, batch), path.with_suffix(".png"))
    if (weights := text_attention(release.network, batch)) is not None:
        length = int(batch.told.attended[0].sum())
        words = [release.tokens.tokenizer.decode([token]) for token in batch.told.tokens[0, :length].tolist()]
        save_figure(draw_text_attention(weights[0, :length], words), path.with_name(f"{path.name}_words.png"))


def _scenes(sample: Asset | None) -> Callable[[int], Any]:
    """Return the function that gives the scene of a row of the list, none where it is not known."""
    if sample is None:
        return lambda row: None
    import pyarrow.parquet as pq

    from tasks.vision_language.claims import things_of

    facts = pq.read_table(sample.folder / "truth.parquet", columns=["scene"])["scene"].to_pylist()
    return lambda row: things_of(json.loads(facts[row]))


def _csv(tables: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, table in tables.items():
        nats, gap, found, said = table["nats"], table["vision_gap"], table["retrieval"], table["captions"]
        values = [nats["nll"], nats["nll_shuffled"], nats["nll_blind"], gap["value"], gap["low"], gap["high"]]
        values += [
            nats["recall"],
            nats["recall_other"],
            nats["recall_misplaced"],
            nats["recall_without"],
            found["text_at_1"],
            found["image_at_1"],
            found["chance_at_1"],
        ]
        values += [said.get("BLEU"), said.get("CIDEr-D")]
        values += [said.get(part, {}).get("count") for part in ("true", "shuffled")]
        writer.writerow([name, *("" if value is None else f"{value:.4g}" for value in values)])
    return text.getvalue()

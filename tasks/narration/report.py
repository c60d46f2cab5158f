"""The stage that judges narrators on windows of the test period."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from configs.weather_lm import JoinConfig, NarrationEvaluation
from storage.assets import Asset
from storage.files import write_atomic
from tasks.stage import Job, StageResult, stage

NARRATOR, PACKED = "weather_narrator", "weather_narrator_packed"
COLUMNS = (
    "narrator", "nats true", "nats shuffled", "nats blind", "gap", "gap low", "gap high", "BLEU", "chrF", "ROUGE-L",
    "CIDEr-D", "values right", "values right, shuffled", "event F1", "gap over",
)  # fmt: skip


@stage("weather_narration_report")
def narration_report(
    job: Job,
    *,
    store: Asset,
    training_set: Asset,
    captions: Asset,
    mae: Asset,
    join: JoinConfig,
    evaluation: NarrationEvaluation,
    **assets: Asset,
) -> StageResult:
    """Compare narrators: likelihood and texts with true windows and the weather of other dates, values against the
    fields; show texts, and the curves of the trainings.

    `assets` are narrators by name, and under other names the language models that were trained for them. Each narrator
    stands beside the first one, and beside one of the same language model that was trained without fields, if any.
    """
    import numpy as np

    from tasks.figures import save_figure
    from tasks.narration.dataset import PairFolders
    from tasks.narration.evaluation import Judged, compare, evaluate_narrator
    from tasks.narration.pictures import draw_likelihoods, draw_told
    from tasks.narration.released import NarratorRelease
    from tasks.training.curves import draw_curves
    from tasks.training.history import read_history

    folders = PairFolders(store.folder, training_set.folder, captions.folder)
    narrators = {name: asset for name, asset in assets.items() if asset.kind in (NARRATOR, PACKED)}
    judged: dict[str, Judged] = {}
    for done, (name, asset) in enumerate(narrators.items()):
        job.progress(done, len(narrators))
        release = NarratorRelease.from_release(asset.folder)
        own = replace(folders, statistics=release.mae.statistics)
        pairs = own.samples("test", join, release.tokens, release.language, release.recipe.max_caption_tokens)
        release.mae.check(pairs.windows)
        if not len(pairs):
            raise ValueError("no window of the test period has a caption to judge by; raise splits.test_share")
        judged[name], told = evaluate_narrator(release, pairs, evaluation)
        random = np.random.default_rng(evaluation.seed)
        shown = random.permutation(len(told))[: evaluation.pictures]
        rows = [(t.weather, pairs.pairs[t.index].box, t.text, pairs.pairs[t.index].texts)
                for t in (told[k] for k in sorted(shown))]  # fmt: skip
        save_figure(draw_told(pairs.windows, rows), job.folder / f"{name}.png")
        write_atomic(job.folder / f"{name}.json", json.dumps(_texts(pairs.pairs, told), indent=1, ensure_ascii=False))
    job.progress(len(narrators), len(narrators))
    tables = compare(judged, evaluation)
    write_atomic(job.folder / "scores.json", json.dumps(_without_nan(tables), indent=1))
    write_atomic(job.folder / "scores.csv", _csv(tables))
    save_figure(draw_likelihoods(tables), job.folder / "likelihoods.png")
    curves = {name: f"curves_{name.replace(' ', '_')}.png" for name in assets if assets[name].kind != PACKED}
    for name, file in curves.items():
        save_figure(draw_curves(read_history(assets[name].folder)), job.folder / file)
    first = next(iter(tables.values()))
    return StageResult(
        counts={"narrators": len(tables), "captions": first["captions"], "days": first["days"]},
        metrics={f"vision_gap_{name}": table["gap"]["value"] for name, table in tables.items()},
        pictures=[*(f"{name}.png" for name in tables), "likelihoods.png", *curves.values()],
    )


def _without_nan(found: Any) -> Any:
    """Return scores as JSON knows them: null where there was nothing to measure."""
    if isinstance(found, Mapping):
        return {name: _without_nan(value) for name, value in found.items()}
    return None if isinstance(found, float) and math.isnan(found) else found


def _texts(pairs: Any, told: Any) -> list[dict[str, Any]]:
    return [
        {
            "date": f"{pairs[t.index].date}",
            "region": pairs[t.index].region,
            "written": t.text,
            "captions": pairs[t.index].texts,
        }
        for t in told
    ]


def _csv(tables: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, table in tables.items():
        nats, gap, true = table["nats_per_token"], table["gap"], table["true"]
        values = [nats["true"], nats["shuffled"], nats["blind"], gap["value"], gap["low"], gap["high"]]
        values += [true[metric] for metric in ("BLEU", "chrF", "ROUGE-L", "CIDEr-D", "value_accuracy")]
        values += [table["shuffled"]["value_accuracy"], true["event_f1"]]
        writer.writerow([name, *("" if value is None else f"{value:.4g}" for value in values), gap["control"]])
    return text.getvalue()

"""The stage that draws and tabulates what a shard set holds."""

from __future__ import annotations

import csv
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.assets import Asset
from storage.files import atomic_path
from storage.shard_index import INDEX, SPLITS
from tasks.stage import Job, StageResult, stage

if TYPE_CHECKING:
    from tasks.image_text.survey import Survey

DROPPED = "dropped.parquet"
SAMPLES, PAIRS, HOSTS = 24, 6, 20
LONGEST = 120
"""Characters of an example in a table."""
COUNTED = {
    "images": "listed images",
    "stored": "stored images",
    "dup_exact": "left out: the same bytes as an earlier image",
    "dup_near": "left out: nearly the same as an earlier image",
    "dup_two_sides": "left out: nearly the same as images of two splits",
    "indexed": "images in the index",
    "without_texture": "stored images with too little texture to compare looks",
    "templated_texts": "texts in the index whose question is a template",
}
"""What the index counts, for people."""


@stage("image_text_report")
def image_text_report(job: Job, *, rows: Asset, shards: Asset, index: Asset) -> StageResult:
    """Draw samples, statuses, sizes, lengths of texts, duplicates and splits; write tables of statuses and hosts."""
    from tasks.figures import save_figure  # plans do without matplotlib
    from tasks.image_text.figures_counts import draw_sizes, draw_splits, draw_statuses, draw_texts
    from tasks.image_text.figures_samples import draw_pairs, draw_samples
    from tasks.image_text.report_samples import choose_pairs, choose_samples
    from tasks.image_text.shard_tables import ShardTables
    from tasks.image_text.survey import take_survey

    tables = ShardTables(shards.folder)
    facts = json.loads((index.folder / INDEX).read_bytes())
    survey = take_survey(tables)
    pairs = choose_pairs(tables, index.folder, PAIRS)
    figures = {
        "samples.png": draw_samples(choose_samples(shards.folder, index.folder, SAMPLES)),
        "statuses.png": draw_statuses(survey),
        "sizes.png": draw_sizes(survey),
        "texts.png": draw_texts(survey),
        "splits.png": draw_splits(facts),
        **({"duplicates.png": draw_pairs(pairs)} if pairs else {}),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # captions in scripts that the font lacks
        for name, figure in figures.items():
            save_figure(figure, job.folder / name)
    dropped = write_dropped(rows.folder / DROPPED, job.folder / "dropped.csv")
    write_statuses(survey, job.folder / "statuses.csv")
    write_hosts(survey, job.folder / "hosts.csv")
    write_counts(facts, dropped, job.folder / "counts.csv")
    counts = {"images": survey.statuses.total(), "hosts": len(survey.hosts), "dropped_rows": dropped}
    return StageResult(counts, pictures=list(figures))


def write_statuses(survey: Survey, path: Path) -> None:
    """Write how many images ended in which status, with an example."""
    total = survey.statuses.total()
    _write(
        path,
        ["status", "images", "share", "example host", "example detail"],
        (
            [status, count, f"{count / total:.2%}", survey.examples[status][0], survey.examples[status][1][:LONGEST]]
            for status, count in survey.statuses.most_common()
        ),
    )


def write_hosts(survey: Survey, path: Path) -> None:
    """Write the hosts of most images, and how many of these were stored."""
    _write(
        path,
        ["host", "images", "stored", "share stored"],
        (
            [host, count, survey.stored[host], f"{survey.stored[host] / count:.2%}"]
            for host, count in sorted(survey.hosts.items(), key=lambda item: (-item[1], item[0]))[:HOSTS]
        ),
    )


def write_counts(index: Mapping[str, Any], dropped: int, path: Path) -> None:
    """Write what the index counted, and how many rows of the lists were dropped before."""
    counts = {words: index["counts"][name] for name, words in COUNTED.items()}
    parts = {f"{what} in {name}": index["splits"][name][what] for name in SPLITS for what in ("images", "texts")}
    _write(path, ["what", "count"], ({"dropped rows of the lists": dropped} | counts | parts).items())


def write_dropped(dropped: Path, path: Path) -> int:
    """Write why rows of the lists were dropped, with an example each, where any were; return how many."""
    import pyarrow.parquet as pq

    reasons: Counter[str] = Counter()
    examples: dict[str, Mapping[str, Any]] = {}
    with pq.ParquetFile(dropped) as file:
        for batch in file.iter_batches(columns=["row", "file", "reason", "text"]):
            names = batch["reason"].to_pylist()
            reasons.update(names)
            for reason in set(names) - examples.keys():
                examples[reason] = batch.slice(names.index(reason), 1).to_pylist()[0]
    if reasons:
        _write(
            path,
            ["reason", "rows", "first file", "first row", "its text"],
            (
                [reason, count, examples[reason]["file"], examples[reason]["row"], examples[reason]["text"][:LONGEST]]
                for reason, count in reasons.most_common()
            ),
        )
    return reasons.total()


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)

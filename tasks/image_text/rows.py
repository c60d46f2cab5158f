"""The stage that turns lists of any kind into rows by image, a list per shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.base import Config
from configs.image_text import Questions, Selection, Source
from storage.assets import Asset
from storage.files import atomic_path, write_atomic
from storage.hashing import canonical_json
from storage.raw import RawInput
from tasks.stage import Job, StageResult, stage

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.image_text.gathering import Gathering

LISTS = "lists"
FACTS = "rows.json"
DROPPED = "dropped.parquet"
NO_LIMIT = 2**62


class Whereabouts(Config):
    """The source as it was configured; where its files lie shapes no row."""

    IN_KEY = False

    source: Source
    """Source with its paths."""


@stage("image_text_rows")
def image_text_rows(
    job: Job,
    *,
    raw: Asset | RawInput,
    names: str,
    reading: Mapping[str, Any],
    whereabouts: Whereabouts,
    select: Selection,
    questions: Questions,
    images_per_shard: int,
) -> StageResult:
    """Read every list, leave out what cannot be used, and gather the rows of every image, however far apart they are.

    `names` is `sources.list_names` and `reading` is `sources.reading` of the source: all of it that shapes rows.
    """
    from tasks.image_text.gathering import Gathering
    from tasks.image_text.intake import Intake
    from tasks.image_text.sources import is_image, list_files

    files = list_files(raw, whereabouts.source)
    intake = Intake(job, questions)
    intake.read(files, reading, most=select.test_rows if select.mode == "test" else None)
    job.message(f"gathering {intake.count} rows by image")
    gathering = Gathering(intake, job.workspace.scratch)
    limit = select.max_images if select.mode == "images" else NO_LIMIT
    counts = _write_lists(job.folder / LISTS, gathering, limit, images_per_shard)
    reasons = _write_dropped(job.folder / DROPPED, gathering)
    if not counts["rows"]:
        why = ", ".join(f"{reason} {n}" for reason, n in reasons.items()) or "the lists are empty"
        raise ValueError(f"source: none of {intake.count} rows can be used ({why}); look at the lists and source")
    lengths = counts.pop("caption_lengths")
    counts = {"input_rows": intake.count, **counts}
    if beyond := intake.count - counts["rows"] - sum(reasons.values()):
        counts["rows_not_selected"] = beyond
    if reading["kind"] == "folder" and select.mode in ("metadata", "full"):
        counts["images_without_caption"] = len({f.sha256 for f in files if is_image(f)}) - counts["images"]
    facts = {"images_per_shard": images_per_shard, "dropped": reasons, "lists": intake.lists()}
    write_atomic(job.folder / FACTS, canonical_json({**counts, **facts, "caption_lengths": lengths}))
    return StageResult(counts=counts | {f"dropped, {reason}": n for reason, n in reasons.items()})


def _write_lists(folder: Path, gathering: Gathering, limit: int, images_per_shard: int) -> dict[str, Any]:
    """Write the list of every shard; return what they hold."""
    from storage.shard_set import parquet_bytes

    counts = dict.fromkeys(("shards", "rows", "images", "with_caption", "with_question", "templated"), 0)
    lengths: Counter[int] = Counter()
    for number, table in gathering.lists(limit, images_per_shard):
        write_atomic(folder / f"{number:05d}.parquet", parquet_bytes(table))
        for name, count in _count(table).items():
            counts[name] += count
        lengths += _caption_lengths(table)
    return counts | {"caption_lengths": {str(length): lengths[length] for length in sorted(lengths)}}


def _count(table: pa.Table) -> dict[str, int]:
    import pyarrow.compute as pc

    return {
        "shards": 1,
        "rows": table.num_rows,
        "images": pc.count_distinct(table["image"]).as_py(),
        "with_caption": pc.sum(pc.not_equal(table["caption"], "")).as_py(),
        "with_question": pc.sum(pc.not_equal(table["question"], "")).as_py(),
        "templated": pc.sum(table["templated"]).as_py(),
    }


def _caption_lengths(table: pa.Table) -> Counter[int]:
    """Count captions by the least power of two above their number of characters; none are left out."""
    import numpy as np
    import pyarrow.compute as pc

    lengths = pc.utf8_length(table["caption"]).to_numpy()
    exponents = np.bincount(np.frexp(lengths[lengths > 0])[1])
    return Counter({2**exponent: int(count) for exponent, count in enumerate(exponents) if count})


def _write_dropped(path: Path, gathering: Gathering) -> dict[str, int]:
    """Write the table of dropped rows; return how many there are for each reason."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    reasons: Counter[str] = Counter()
    schema = pa.schema([("row", pa.int64()), *((name, pa.string()) for name in ("file", "reason", "text"))])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in gathering.dropped():
            writer.write_batch(batch)
            reasons.update(batch["reason"].to_pylist())
    return dict(sorted(reasons.items()))

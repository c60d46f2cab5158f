"""What the tables of a shard set add up to: statuses, hosts, sizes and texts of a sample; one pass, shard by shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.shard_set import OK
from tasks.image_text.shard_tables import ShardTables, first_rows

SAMPLE = 200_000
"""Images whose sizes and texts are measured; of more, every n-th is."""
SIZES = ("original_width", "original_height", "bytes")
TEXTS = ("caption", "question", "answer")
HERE = "(local files)"
"""Stands for the host of images without an address."""


@dataclass(slots=True)
class Survey:
    """Sums over all listed images, and measurements of a sample of the stored ones."""

    statuses: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By status: host and detail of the first image."""
    hosts: Counter[str] = field(default_factory=Counter)
    stored: Counter[str] = field(default_factory=Counter)
    """Images that were stored, by host."""
    sizes: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    words: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Words of each kind of text, where there is one."""


def take_survey(tables: ShardTables) -> Survey:
    """Go through all tables."""
    survey = Survey()
    step, seen = 1 + sum(shard.stored for shard in tables.shards) // SAMPLE, 0
    sizes: dict[str, list[Any]] = {name: [] for name in SIZES}
    words: dict[str, list[Any]] = {name: [] for name in TEXTS}
    for _, table in tables.decided(["status", "url", "detail", *SIZES, *TEXTS]):
        _count(survey, table.filter(first_rows(table)))
        rows = table.filter(pc.equal(table["status"], OK))
        place = seen + np.cumsum(first_rows(rows)) - 1
        seen = int(place[-1]) + 1 if len(place) else seen
        rows = rows.filter(place % step == 0)
        images = rows.filter(first_rows(rows))
        for name in SIZES:
            sizes[name].append(images[name].to_numpy().astype(np.int64))
        for name in TEXTS:
            words[name].append([len(text.split()) for text in rows[name].to_pylist() if text])
    survey.sizes = {name: np.concatenate(parts) for name, parts in sizes.items()}
    survey.words = {name: np.concatenate(parts).astype(np.int64) for name, parts in words.items()}
    return survey


def _count(survey: Survey, images: pa.Table) -> None:
    statuses = images["status"].to_pylist()
    hosts = [host_of(url) for url in images["url"].to_pylist()]
    survey.statuses.update(statuses)
    survey.hosts.update(hosts)
    survey.stored.update(host for host, status in zip(hosts, statuses, strict=True) if status == OK)
    for status in set(statuses) - survey.examples.keys():
        first = statuses.index(status)
        survey.examples[status] = hosts[first], images["detail"][first].as_py()


def host_of(url: str) -> str:
    """Return the host of an address, without user and port; `host_of("https://A.org:81/x") => "a.org"`."""
    if not url:
        return HERE
    network = url.partition("://")[2].partition("/")[0].partition("?")[0].partition("#")[0]
    name = network.rpartition("@")[2].lower()
    return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]

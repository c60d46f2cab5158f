"""Questions with answers about things that an encoder has seen already, and what it saw of each.

A folder holds

    features/NNNNN.npy     (items, K, width) float16, what the encoder saw; items are numbered across the files
    projection.safetensors a frozen linear map of it, where there is one: `weight` (D, width), `bias` (D,)
    questions.parquet      the fields of `Asked`
    meta.json              tokens K, width, items of each file
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.files import atomic_path, write_atomic
from storage.shard_set import parquet_bytes

if TYPE_CHECKING:
    from torch import Tensor

FEATURES, PROJECTION, QUESTIONS, META = "features", "projection.safetensors", "questions.parquet", "meta.json"
OPEN_FILES = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about an item and its answer."""

    split: str
    item: int
    question: str
    answer: str
    templated: bool
    """The question was made from a template, so the answer is a description."""
    row: int
    """Of the input list."""
    key: str
    """What people call the item."""
    group: int
    """Items that are alike, e.g. windows of one spell of weather, have one group: intervals resample groups."""


def features_file(number: int) -> str:
    """Return the name of a file of features."""
    return f"{FEATURES}/{number:05d}.npy"


def write_features(path: Path, features: Tensor) -> None:
    """Write what an encoder saw of some items, (items, K, width)."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array(file, features.half().cpu().numpy(), allow_pickle=False)


def write_questions(
    folder: Path, asked: Iterable[Asked], items: Sequence[int], shape: tuple[int, int], projection: Mapping[str, Tensor]
) -> None:
    """Write everything but the features.

    Args:
        folder: where.
        asked: questions.
        items: how many items each file of features holds.
        shape: tokens and width of an item.
        projection: `weight` and `bias`; empty where there is none.
    """
    import pyarrow as pa

    from storage.checkpoints import save_weights  # plans do without torch

    write_atomic(folder / QUESTIONS, parquet_bytes(pa.Table.from_pylist([asdict(one) for one in asked])))
    if projection:
        save_weights(folder / PROJECTION, dict(projection))
    meta = {"tokens": shape[0], "width": shape[1], "items": list(items)}
    write_atomic(folder / META, json.dumps(meta))


class QuestionSet:
    """Reads what the functions above wrote.

    Attributes:
        tokens, width: K and the channels of what was seen of an item.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meta = json.loads((folder / META).read_text())
        self.tokens, self.width = meta["tokens"], meta["width"]
        self._starts = np.cumsum([0, *meta["items"]])

    def projection(self) -> dict[str, Tensor]:
        """Return `weight` (D, width) and `bias` (D,); empty where there is none."""
        from storage.checkpoints import read_weights

        path = self.folder / PROJECTION
        return read_weights(path) if path.exists() else {}

    def asked(self, split: str) -> list[Asked]:
        """Return the questions of a split, in the order of the input list."""
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(self.folder / QUESTIONS, filters=[("split", "=", split)]).to_pylist()
        return [Asked(**row) for row in rows]

    def features(self, item: int) -> Tensor:
        """Return what was seen of an item, (K, width) float16."""
        import torch

        number = int(np.searchsorted(self._starts, item, side="right")) - 1
        return torch.from_numpy(np.array(_mapped(self.folder / features_file(number))[item - self._starts[number]]))


@lru_cache(maxsize=OPEN_FILES)
def _mapped(path: Path) -> NDArray[np.float16]:
    array: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array

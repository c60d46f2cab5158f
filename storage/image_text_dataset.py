"""Images and texts of a shard set as a map-style PyTorch dataset."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.utils.data import Dataset

from configs.vision_language import Fit
from storage.image_decoding import FITS, decode_square
from storage.sampling import sample_seed
from storage.shard_index import Entry, LocalBytes, ShardBytes, SplitIndex

OnError = Literal["raise", "skip"]

TAR_HEADER = 512
NEARBY = 4096
"""Members that are not further apart than this are read at once."""
ENOUGH_READS = 100
"""Reads from which on the share of broken samples says something."""


class ImageTextDataset(Dataset[dict[str, Any]]):
    """The text rows of one split with their images, read at random from the tars.

    `shards` is the tars' folder, or what reads them elsewhere; folders may be given as text.

    A sample is a dict:

        image        uint8 tensor (3, side, side), RGB; a view of pixels with colours last, which stacking copies
        caption, question, answer   str, empty where absent
        templated    bool: the question was made from a template, and the answer is a caption
        key          str, the image's name in its tar
        row          int, the input row that the texts come from
        index        int, position within the split
        replacement  bool: stands for a broken sample

    Bytes are read and decoded strictly: what is damaged raises `ValueError` with tar and key. With `on_error="skip"`
    another sample takes its place, chosen by its index alone, and `errors` counts it; `ValueError` once more than
    `max_error_share` of at least 100 reads failed. Loader processes count for themselves: add up `replacement` over
    batches to know of all of them.

    Files are opened where the dataset is used, so it may be sent to workers that are forked or spawned.
    """

    def __init__(
        self,
        shards: Path | str | ShardBytes,
        index_folder: Path | str,
        split: str,
        *,
        side: int,
        fit: Fit = "crop",
        on_error: OnError = "raise",
        max_error_share: float = 0.01,
    ) -> None:
        if side < 1 or fit not in FITS:
            raise ValueError(f"images of side {side} with fit {fit!r} cannot be made; fit is one of {', '.join(FITS)}")
        if on_error not in get_args(OnError) or not 0 <= max_error_share < 1:
            raise ValueError(
                f"on_error is 'raise' or 'skip', not {on_error!r}, and max_error_share ({max_error_share}) is at least "
                "0 and below 1"
            )
        self.index = SplitIndex(Path(index_folder), split)
        self.reads = self.errors = 0
        self._source = LocalBytes(Path(shards)) if isinstance(shards, Path | str) else shards
        self._side, self._fit, self._skips, self._max_error_share = side, fit, on_error == "skip", max_error_share
        self._rebuild = partial(
            ImageTextDataset, shards, index_folder, split,
            side=side, fit=fit, on_error=on_error, max_error_share=max_error_share,
        )  # fmt: skip
        self.index.check_sizes(self._source)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._rebuild, ()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def fingerprint(self) -> str:
        """Names the samples and their order, for the state of a loader."""
        return self.index.fingerprint

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = place = range(len(self))[index]
        attempt = 0
        while True:
            self.reads += 1
            try:
                sample = self._sample(place)
            except ValueError as error:
                if not self._skips:
                    raise
                self.errors += 1
                self._check_share(error)
                attempt += 1
                place = sample_seed(index, attempt, 0) % len(self)
            else:
                self._check_share()
                return sample | {"replacement": attempt > 0}

    def _check_share(self, error: ValueError | None = None) -> None:
        if self.reads >= ENOUGH_READS and self.errors > self._max_error_share * self.reads:
            last = f"; the last: {error}" if error else ""
            raise ValueError(
                f"{self.errors} of {self.reads} reads of samples failed, more than the share of "
                f"{self._max_error_share:g} that is allowed; see to the shards, or raise max_error_share{last}"
            ) from error

    def _sample(self, index: int) -> dict[str, Any]:
        entry = self.index[index]
        name = self.index.shards[entry.shard]
        try:
            jpeg, facts = self._read(name, entry)
            found = json.loads(facts)
            text = found["rows"][entry.text]
            return {
                "image": torch.from_numpy(decode_square(jpeg, self._side, self._fit)).permute(2, 0, 1),
                "caption": text["caption"],
                "question": text["question"],
                "answer": text["answer"],
                "templated": text["templated"],
                "key": found["key"],
                "row": text["row"],
                "index": index,
            }
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"sample {self._key(name, entry)} of {name} in {self._source} cannot be read ({error!r}); restore the "
                "tar, or pass on_error='skip'"
            ) from error

    def _read(self, name: str, entry: Entry) -> tuple[memoryview, bytes]:
        """Return the image's bytes and those of its JSON member."""
        gap = entry.json_offset - (entry.jpg_offset + entry.jpg_size)
        if 0 <= gap <= NEARBY:
            size = entry.jpg_size + gap + entry.json_size
            data = self._part(name, entry.jpg_offset, size)
            return memoryview(data)[: entry.jpg_size], data[entry.jpg_size + gap :]
        jpeg = self._part(name, entry.jpg_offset, entry.jpg_size)
        return memoryview(jpeg), self._part(name, entry.json_offset, entry.json_size)

    def _part(self, name: str, offset: int, size: int) -> bytes:
        data = self._source.read(name, offset, size)
        if len(data) != size:
            raise ValueError(f"{len(data)} of {size} bytes at {offset}")
        return data

    def _key(self, name: str, entry: Entry) -> str:
        """Return the key that the tar's own header gives the image; it is there when the JSON member is damaged."""
        try:
            header = self._source.read(name, entry.jpg_offset - TAR_HEADER, 100)
        except OSError:
            header = b""
        return header.partition(b".")[0].decode("ascii", "replace") or f"at byte {entry.jpg_offset}"

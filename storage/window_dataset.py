"""Training windows as a map-style PyTorch dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from storage.training_set import ChannelStatistics, TrainingSet, normalisation
from storage.window_store import WindowStore


class WindowDataset(Dataset[dict[str, Any]]):
    """The usable windows of one split, normalised by the statistics of the training period.

    A sample is a dict of tensors:

        data       float32 (channel, time, height, width), normalised, 0 where NaN
        valid      bool, same shape: False where the value was NaN
        time       int64, seconds since 1970-01-01 UTC of the window's anchor step
        latitude   float32 (height), degrees north
        longitude  float32 (width), degrees east
        index      int64, position within the split

    The folders of a window store and of its training set may be given as text. `statistics` are those of a trained
    model, by which values are normalised in place of the training set's own.

    Files are opened where the dataset is used, so it may be sent to workers that are forked or spawned.
    """

    def __init__(
        self,
        store_folder: Path | str,
        training_set_folder: Path | str,
        split: str,
        statistics: Sequence[ChannelStatistics] | None = None,
    ) -> None:
        self.store = WindowStore.open(Path(store_folder))
        self.training_set = TrainingSet.load(Path(training_set_folder))
        self.split = split
        self._arguments = store_folder, training_set_folder, split, statistics
        channels = tuple(s.channel for s in self.training_set.statistics)
        if channels != self.store.channels or self.training_set.steps != len(self.store.time):
            raise ValueError(
                f"the training set in {training_set_folder} was built for another store than {store_folder}"
            )
        self._length = self.training_set.length(split)
        self.statistics = tuple(statistics or self.training_set.statistics)
        self._mean, self._scale = normalisation(self.statistics)

    def __reduce__(self) -> tuple[Any, ...]:
        return WindowDataset, self._arguments

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        t, y, x = self.training_set.origin(self.split, index)
        grid, store = self.training_set.grid, self.store
        data = store.read(t, y, x, grid.shape)
        valid = np.empty(data.shape, bool)
        for plane, is_valid, mean, scale in zip(data, valid, self._mean, self._scale, strict=True):
            np.equal(plane, plane, out=is_valid)  # channel by channel, while it is in the processor's cache
            plane -= mean
            plane *= scale
            if not is_valid.all():
                plane[~is_valid] = 0
        _, height, width = grid.shape
        columns = np.arange(x, x + width) % len(store.longitude)
        anchor = store.time[t + grid.anchor_step].astype(np.int64)
        return {
            "data": torch.from_numpy(data),
            "valid": torch.from_numpy(valid),
            "time": torch.tensor(int(anchor)),
            "latitude": torch.from_numpy(store.latitude[y : y + height].astype(np.float32)),
            "longitude": torch.from_numpy(store.longitude[columns].astype(np.float32)),
            "index": torch.tensor(index),
        }

    def physical(self, data: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return normalised values (channel, ...) in their units again, NaN where not valid."""
        shape = (-1, *(1,) * (data.ndim - 1))
        mean, scale = (torch.from_numpy(values).reshape(shape) for values in (self._mean, self._scale))
        return (data / scale + mean).masked_fill(~valid, torch.nan)

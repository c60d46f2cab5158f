"""Pictures of reconstructions, and of what is left wrong by channel and by mask ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from storage.window_dataset import WindowDataset
from tasks.figures import subplots
from tasks.window_maps import limits, moment_of

COLUMNS = ("truth", "shown", "rebuilt", "error, \N{PLUS-MINUS SIGN}1 std")
MOST_CHANNELS = 6


def draw_reconstructions(
    windows: WindowDataset, batch: Mapping[str, Tensor], prediction: Tensor, hidden: Tensor
) -> Figure:
    """Draw the middle step of each window, a row per channel: truth, what was shown, rebuilt, and the error.

    What was shown stands in the rebuilt map too: models are not trained to repeat it. `prediction` is (B, C, T, H, W),
    normalised; `hidden` (B, 1, T, H, W). The error is in standard deviations of the channel.
    """
    names = windows.store.channels
    channels = np.unique(np.linspace(0, len(names) - 1, min(MOST_CHANNELS, len(names))).astype(int))
    count = len(prediction)
    figure, axes = subplots(
        len(channels), 4 * count, figsize=(1.75 * 4 * count + 0.8, 1.55 * len(channels) + 0.5),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for which in range(count):
        step = prediction.shape[2] // 2
        valid = batch["valid"][which]
        truth = windows.physical(batch["data"][which], valid)[:, step].numpy()
        rebuilt = windows.physical(prediction[which], valid)[:, step].numpy()
        unseen = hidden[which, :, step].numpy()
        shown = np.where(unseen, np.nan, truth)
        departure = (prediction[which] - batch["data"][which])[:, step].numpy()
        error = np.where(unseen & valid[:, step].numpy(), departure, np.nan)
        rebuilt = np.where(unseen, rebuilt, truth)
        for row, channel in enumerate(channels):
            panels = (truth[channel], shown[channel], rebuilt[channel], error[channel])
            _draw_row(axes[row][4 * which : 4 * which + 4], panels)
            axes[row][0].set_ylabel(f"{names[channel]}\n{windows.store.attrs['units'][names[channel]]}", fontsize=7)
        moment = moment_of(windows, batch["time"][which], step)
        for column, title in enumerate(COLUMNS):
            axes[0][4 * which + column].set_title(title if column else f"{moment}\n{title}", fontsize=7)
    return figure


def _draw_row(axes: Sequence[Axes], panels: Sequence[np.ndarray]) -> None:
    truth, _, rebuilt, error = panels
    low, high = limits(np.stack((truth, rebuilt)))
    for axis, panel in zip(axes, panels, strict=True):
        scale = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1} if panel is error else {"vmin": low, "vmax": high}
        axis.imshow(panel, aspect="auto", **scale)
        axis.set_facecolor("#dddddd")
        axis.set_xticks([])
        axis.set_yticks([])


def draw_errors(by_channel: Mapping[str, Mapping[str, float]], by_ratio: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw mean squared errors of normalised values: by channel as bars, and by share of hidden cells as lines.

    Both map who guesses to channel or ratio to error.
    """
    figure, (left, right) = subplots(1, 2, figsize=(12, 3.6), layout="constrained", width_ratios=(2, 1))
    width = 0.8 / len(by_channel)
    for k, (name, errors) in enumerate(by_channel.items()):
        left.bar(np.arange(len(errors)) + k * width, list(errors.values()), width, label=name)
        left.set_xticks(np.arange(len(errors)) + 0.4 - width / 2, list(errors), rotation=60, fontsize=7)
    left.set_ylabel("error of hidden values, variances")
    left.legend(fontsize=7)
    for name, errors in by_ratio.items():
        right.plot([float(ratio) for ratio in errors], list(errors.values()), marker="o", label=name)
    right.set_xlabel("share of cells hidden")
    right.legend(fontsize=7)
    return figure

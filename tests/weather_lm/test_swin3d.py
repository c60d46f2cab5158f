"""3D Swin blocks: equal to a plain implementation on every grid, and to Video Swin where the two mean the same."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.weather.swin3d import (
    DropPath,
    Grid,
    PatchEmbed3D,
    PatchMerging3D,
    SwinBlock,
    SwinStage,
    WindowLayout,
    as_grid,
)
from models.weather.swin3d import sincos_position as position

WINDOW = (2, 4, 4)
GRIDS = {
    "divisible": (4, 8, 8),
    "one window in time": (2, 8, 8),
    "one window": (2, 4, 4),
    "odd": (3, 7, 9),
    "odd in time": (5, 4, 8),
    "smaller in time": (1, 6, 8),
    "smaller in space": (4, 3, 5),
    "smaller on every axis": (1, 3, 2),
    "one token": (1, 1, 1),
}
GOLDEN = Path(__file__).parent / "golden" / "video_swin_block.safetensors"


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def randomised(module: nn.Module) -> nn.Module:
    """Give every parameter a size at which each term of the block matters."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    return module.eval()


def layout_of(grid: Grid, shifted: bool, window: Grid = WINDOW) -> WindowLayout:
    return WindowLayout.of(grid, window, shifted, torch.device("cpu"))


def plain_block(block: SwinBlock, x: np.ndarray, window: Grid, shifted: bool) -> np.ndarray:
    """Compute a block on (T, H, W, C) token by token, without padding, rolling or masks.

    A token attends to the tokens that lie in the same window, and windows are a tiling of the grid that is moved by
    half a window: on an axis, window number floor((place - shift) / size).
    """
    weights = {name: value.detach().double().numpy() for name, value in block.named_parameters()}
    normed = plain_norm(x, weights["norm.weight"], weights["norm.bias"])
    projected = normed @ weights["attention.query_key_value.weight"].T + weights["attention.query_key_value.bias"]
    query, key, value = np.split(projected, 3, -1)
    grid = x.shape[:3]
    shift = [size // 2 if shifted and limit > size else 0 for size, limit in zip(window, grid, strict=True)]
    tiles: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for place in product(*map(range, grid)):
        tile = tuple((p - s) // size for p, s, size in zip(place, shift, window, strict=True))
        tiles.setdefault(tile, []).append(place)
    mixed = np.zeros_like(x)
    bias = weights["attention.position_bias"].reshape(*(2 * size - 1 for size in window), -1)
    heads = block.attention.heads
    for places in tiles.values():
        for q in places:
            mixed[q] = plain_attention(query, key, value, bias, q, places, heads, window)
    x = x + mixed @ weights["attention.merge.weight"].T + weights["attention.merge.bias"]
    hidden = plain_norm(x, weights["mlp.0.weight"], weights["mlp.0.bias"]) @ weights["mlp.1.weight"].T
    hidden = hidden + weights["mlp.1.bias"]
    hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return x + hidden @ weights["mlp.3.weight"].T + weights["mlp.3.bias"]


def plain_attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    bias: np.ndarray,
    q: tuple[int, ...],
    places: list[tuple[int, ...]],
    heads: int,
    window: Grid,
) -> np.ndarray:
    width = query.shape[-1] // heads
    out = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = []
        for k in places:
            offset = tuple(a - b + size - 1 for a, b, size in zip(q, k, window, strict=True))
            scores.append(query[q][part] @ key[k][part] / math.sqrt(width) + bias[offset][head])
        share = np.exp(np.array(scores) - max(scores))
        share = share / share.sum()
        out.append(sum(s * value[k][part] for s, k in zip(share, places, strict=True)))
    return np.concatenate(out)


def plain_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_a_block_equals_a_loop_over_windows_and_tokens(grid: Grid, shifted: bool) -> None:
    block = SwinBlock(12, 3, WINDOW, 2.0, 0.0)
    randomised(block)
    x = torch.randn(2, *grid, 12)
    found = block(x, layout_of(grid, shifted)).detach().double().numpy()
    for sample in range(2):
        expected = plain_block(block, x[sample].double().numpy(), WINDOW, shifted)
        np.testing.assert_allclose(found[sample], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", ["divisible", "one_window_in_time", "smaller_in_time"])
def test_a_shifted_block_equals_video_swin(case: str) -> None:
    """The golden numbers are those of torchvision 0.29.1, models.video.swin_transformer, with the same weights."""
    golden = load_file(GOLDEN)
    block = SwinBlock(12, 3, WINDOW, 2.0, 0.0).eval()
    block.load_state_dict({k.removeprefix("weights."): v for k, v in golden.items() if k.startswith("weights.")})
    x = golden[f"{case}.input"]
    torch.testing.assert_close(
        block(x, layout_of(as_grid(x.shape[1:4]), True)), golden[f"{case}.output"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_windows_join_to_what_was_cut(grid: Grid) -> None:
    x = torch.randn(2, *grid, 5)
    for shifted in (False, True):
        layout = layout_of(grid, shifted)
        windows = layout.partition(x)
        assert windows.shape[2] == math.prod(layout.window)
        assert torch.equal(layout.join(windows), x)


def test_axes_that_one_window_covers_are_not_shifted() -> None:
    assert layout_of((2, 8, 8), True).shift == (0, 2, 2)
    assert layout_of((4, 3, 9), True).shift == (1, 0, 2)
    assert layout_of((4, 3, 9), True).window == (2, 3, 4)
    assert layout_of((2, 4, 4), True).allowed is None


def test_every_second_block_of_a_stage_has_shifted_windows() -> None:
    stage = SwinStage(12, 3, WINDOW, 2.0, [0.0, 0.0, 0.0])
    randomised(stage)
    x = torch.randn(1, 4, 7, 8, 12)
    expected = x
    for block, shifted in zip(stage.blocks, (False, True, False), strict=True):
        expected = block(expected, layout_of((4, 7, 8), shifted))
    assert torch.equal(stage(x), expected)


def test_a_stage_gives_the_same_after_other_grids() -> None:
    """Nothing of one grid is left over for the next, not even where the windows are as many."""
    stage = SwinStage(12, 3, WINDOW, 2.0, [0.0, 0.0])
    randomised(stage)
    inputs = [torch.randn(1, *grid, 12) for grid in ((4, 8, 8), (4, 4, 16), (4, 16, 4), (3, 7, 9), (1, 3, 2))]
    first = [stage(x) for x in inputs]
    for x, before in reversed(list(zip(inputs, first, strict=True))):
        assert before.shape == x.shape
        assert torch.equal(stage(x), before)


@pytest.mark.parametrize("grid", [(3, 7, 9), (1, 3, 2)])
def test_gradients_are_finite_where_windows_are_padded(grid: Grid) -> None:
    stage = SwinStage(12, 3, WINDOW, 2.0, [0.0, 0.0])
    x = torch.randn(2, *grid, 12, requires_grad=True)
    stage(x).square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in stage.parameters())]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_a_stage_runs_in_bf16() -> None:
    stage = SwinStage(12, 3, WINDOW, 2.0, [0.0, 0.0])
    x = torch.randn(2, 3, 7, 9, 12)
    with torch.autocast("cpu", torch.bfloat16):
        found = stage(x)
    torch.testing.assert_close(found.float(), stage(x), rtol=0.05, atol=0.05)


def test_patch_embedding_sees_its_patch_alone() -> None:
    embed = PatchEmbed3D(2, 12, (2, 4, 4))
    data = torch.randn(1, 2, 4, 8, 12)
    changed = data.clone()
    changed[:, :, 2:, 4:, :4] += 1
    assert embed(data).shape == (1, 2, 2, 3, 12)
    assert differing(embed(data), embed(changed)) == [[0, 1, 1, 0]]


def differing(one: Tensor, other: Tensor) -> list[list[int]]:
    return (one != other).any(-1).nonzero().tolist()


@pytest.mark.parametrize(("merge", "merged"), [((2, 2, 2), (2, 3, 4)), ((1, 2, 2), (3, 3, 4))])
def test_merging_takes_neighbours_and_pads_odd_grids(merge: Grid, merged: Grid) -> None:
    merging = PatchMerging3D(6, merge)
    x = torch.randn(1, 3, 5, 7, 6)
    found = merging(x)
    assert found.shape == (1, *merged, 12)
    changed = x.clone()
    changed[:, 2, 4, 6] += 1
    assert differing(found, merging(changed)) == [[0, *(size - 1 for size in merged)]]
    parts = [x[0, t, h, w] for t in range(merge[0]) for h in (0, 1) for w in (0, 1)]
    torch.testing.assert_close(found[0, 0, 0, 0], merging.reduction(merging.norm(torch.cat(parts))))


def test_positions_tell_all_tokens_apart() -> None:
    table = position((3, 5, 7), 26)
    assert table.shape == (3, 5, 7, 26)
    assert torch.cdist(table.flatten(0, 2), table.flatten(0, 2)).fill_diagonal_(1).min() > 0.1
    assert not table[..., 24:].any()
    assert torch.equal(table[2, 3, 4, 16:24], table[0, 0, 4, 16:24])
    assert table[0, 0, 4, 16] == pytest.approx(math.sin(4))


def test_drop_path_drops_samples_in_training_alone_and_keeps_the_mean() -> None:
    path = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    dropped = path(x)
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert (dropped.flatten(1) == dropped[:, 0, :1]).all()
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)
    assert path.eval()(x) is x

"""The masked autoencoder: what may reach its prediction, what it is trained on, and that it learns."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from configs.sat_swin_mae import SwinMaeConfig
from models.weather.sat_swin_mae import (
    SatSwinMAE,
    draw_masks,
    pixel_mask,
    squared_errors,
    sum_by_channel,
    value_weights,
)
from models.weather.swin3d import DropPath, Grid

CHANNELS = 3
WINDOWS = {"whole cells": (4, 32, 32), "ragged": (6, 20, 28), "small": (2, 16, 16)}
SMALL: dict[str, Any] = {
    "window": (2, 4, 4),
    "width": 24,
    "heads": (2, 4),
    "decoder_width": 24,
    "decoder_heads": 2,
}


def model_of(window: Grid = (4, 32, 32), **settings: Any) -> SatSwinMAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SatSwinMAE(SwinMaeConfig(**SMALL | settings), CHANNELS, window).eval()


def inputs_of(window: Grid, batch: int = 2) -> tuple[Tensor, dict[str, Tensor]]:
    """Return data, and its place and time."""
    generator = torch.Generator().manual_seed(1)
    corner = torch.tensor([[40.0], [-10.0], [80.0]])[:batch]
    context = {
        "time": torch.tensor([1_700_000_000, 86_400 * 150, -3_600])[:batch],
        "latitude": corner - torch.arange(window[1]) * 0.25,
        "longitude": corner + torch.arange(window[2]) * 0.25,
    }
    return torch.randn(batch, CHANNELS, *window, generator=generator), context


def masks_of(model: SatSwinMAE, batch: int = 2, ratio: float = 0.5) -> Tensor:
    return draw_masks(batch, model.units, ratio, torch.Generator().manual_seed(2))


def pixels_of(model: SatSwinMAE, mask: Tensor) -> Tensor:
    return pixel_mask(mask, model.units, model.config.cell, model.window)


@pytest.mark.parametrize("merge_time", [True, False])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
def test_shapes(window: Grid, merge_time: bool) -> None:
    model = model_of(window, merge_time=merge_time)
    data, context = inputs_of(window)
    assert model.units == tuple(math.ceil(size / cell) for size, cell in zip(window, model.config.cell, strict=True))
    assert model(data, masks_of(model), **context).shape == data.shape
    tokens = model.encode_tokens(data, **context)
    assert tokens.shape == (2, math.prod(model.token_grid), model.token_width) == (2, math.prod(model.units), 48)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
def test_hidden_values_have_no_effect_on_the_prediction_and_visible_ones_have(window: Grid) -> None:
    model = model_of(window)
    data, context = inputs_of(window)
    mask = masks_of(model)
    hidden = pixels_of(model, mask).expand_as(data)
    before = model(data, mask, **context)
    for value in (0.0, 1e6):
        assert torch.equal(model(data.masked_fill(hidden, value), mask, **context), before)
    assert not torch.equal(model(torch.where(hidden, data, data + 1), mask, **context), before)


def test_no_gradient_reaches_hidden_values_and_each_visible_one_gets_some() -> None:
    model = model_of((6, 20, 28))
    data, context = inputs_of(model.window)
    mask = masks_of(model)
    data.requires_grad_()
    model(data, mask, **context).square().sum().backward()
    assert data.grad is not None
    assert torch.equal(data.grad != 0, ~pixels_of(model, mask).expand_as(data))


def test_a_prediction_depends_on_where_the_hidden_token_lies() -> None:
    """Even with everything hidden: positions are added to the mask token too."""
    model = model_of(context="none")
    data, _ = inputs_of(model.window)
    found = model(data, torch.ones(2, math.prod(model.units), dtype=torch.bool))
    cells = found[0].unfold(2, 8, 8).unfold(3, 8, 8)
    spread = cells.std((2, 3)).mean()
    assert spread > 0.05 * found.std()


def test_the_mask_token_is_a_parameter_from_the_start_and_is_trained() -> None:
    model = model_of().train()
    before = [name for name, _ in model.named_parameters()]
    assert "mask_token" in before
    data, context = inputs_of(model.window)
    model(data, masks_of(model), **context).square().sum().backward()
    assert [name for name, _ in model.named_parameters()] == before
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_evaluation_is_deterministic_and_drop_path_rises_linearly() -> None:
    model = model_of(drop_path=0.3)
    data, context = inputs_of(model.window)
    mask = masks_of(model)
    assert torch.equal(model.encode_tokens(data, **context), model.encode_tokens(data, **context))
    assert torch.equal(model(data, mask, **context), model(data, mask, **context))
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0])
    model.train()
    first = model.encode_tokens(data, **context)
    assert any(not torch.equal(first, model.encode_tokens(data, **context)) for _ in range(20)), "no path is dropped"


def test_samples_do_not_touch_each_other() -> None:
    model = model_of((6, 20, 28))
    data, context = inputs_of(model.window, batch=3)
    alone = model.encode_tokens(data[1:2], **{name: value[1:2] for name, value in context.items()})
    torch.testing.assert_close(model.encode_tokens(data, **context)[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["time", "latitude", "longitude"])
def test_tokens_depend_on_place_and_time(name: str) -> None:
    model = model_of()
    data, context = inputs_of(model.window)
    step = 30 * 86_400 if name == "time" else 5
    moved = context | {name: context[name] + step}
    assert not torch.allclose(model.encode_tokens(data, **context), model.encode_tokens(data, **moved))


def test_context_features_equal_the_calendar() -> None:
    """Local solar time and season of a patch, against datetime; a patch across the date line has no jump."""
    model = model_of(width=24)
    assert model.context
    with torch.no_grad():
        model.context.projection.weight.copy_(torch.eye(24, 8))
        model.context.projection.bias.zero_()
    moment = datetime(2024, 8, 1, 18, tzinfo=UTC)
    latitude = torch.full((1, 4), 30.0)
    longitude = torch.tensor([[90.0] * 4 + [179.0, 179.5, -179.5, -179.0]])
    found = model.context(torch.tensor([int(moment.timestamp())]), latitude, longitude)[0, 0, 0]
    sine, cosine, summer_sine, summer_cosine, east_sine, east_cosine, solar_sine, solar_cosine = found[0, :8].tolist()
    day = (moment - datetime(2024, 1, 1, tzinfo=UTC)).total_seconds() / 86_400
    assert (sine, cosine) == pytest.approx((0.5, math.sqrt(0.75)), abs=1e-5)
    assert math.atan2(summer_sine, summer_cosine) % (2 * math.pi) == pytest.approx(2 * math.pi * day / 366, abs=0.02)
    assert (east_sine, east_cosine) == pytest.approx((1, 0), abs=1e-5)
    assert (solar_sine, solar_cosine) == pytest.approx((0, 1), abs=1e-5), "18 UTC at 90 E is midnight"
    assert found[1, 4:6].tolist() == pytest.approx([0, -1], abs=1e-3)


def test_without_context_none_is_needed_and_with_it_all_are() -> None:
    data, context = inputs_of((4, 32, 32))
    model_of(context="none").encode_tokens(data)
    with pytest.raises(ValueError, match="pass time, latitude and longitude"):
        model_of().encode_tokens(data, time=context["time"])


@pytest.mark.parametrize("window", [(3, 32, 32), (4, 30, 32), (4, 32, 2)])
def test_windows_that_patches_do_not_divide_are_refused(window: Grid) -> None:
    with pytest.raises(ValueError, match="make it a multiple of"):
        model_of(window)


def test_data_of_another_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"this model takes \(batch, 3, 4, 32, 32\)"):
        model_of(context="none").encode_tokens(torch.zeros(1, CHANNELS, 4, 32, 36))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"depths": (2, 2, 2)}, "one number per stage"),
        ({"heads": (3, 5)}, "width 192 of stage 1 must be a multiple of its 5 heads"),
        ({"decoder_width": 100}, "multiple of decoder_heads"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SwinMaeConfig(**settings)


def test_cells_are_patches_times_merges() -> None:
    assert SwinMaeConfig().cell == (4, 8, 8)
    assert SwinMaeConfig(merge_time=False).cell == (2, 8, 8)
    assert SwinMaeConfig(depths=(1, 1, 1), heads=(3, 6, 12), patch=(1, 4, 5)).cell == (4, 16, 20)


@pytest.mark.parametrize(("ratio", "count"), [(0.75, 22), (0.5, 15), (0.0, 1), (1.0, 29)])
def test_masks_hide_the_same_number_in_each_sample(ratio: float, count: int) -> None:
    units = (2, 3, 5)
    masks = draw_masks(64, units, ratio, torch.Generator().manual_seed(0))
    assert masks.shape == (64, 30)
    assert masks.sum(1).tolist() == [count] * 64
    assert torch.equal(masks, draw_masks(64, units, ratio, torch.Generator().manual_seed(0)))
    assert len(set(map(tuple, masks.tolist()))) > 20


def test_masks_hide_every_unit_equally_often() -> None:
    share = draw_masks(4000, (1, 3, 3), 0.6, torch.Generator().manual_seed(0)).float().mean(0)
    assert share.tolist() == pytest.approx([5 / 9] * 9, abs=0.04)


@pytest.mark.parametrize("ratio", [0.01, 0.5, 0.99])
def test_of_two_units_one_is_hidden(ratio: float) -> None:
    assert draw_masks(9, (1, 1, 2), ratio, torch.Generator().manual_seed(0)).sum(1).tolist() == [1] * 9


def test_a_window_of_one_unit_cannot_be_masked() -> None:
    with pytest.raises(ValueError, match="make the window larger"):
        draw_masks(1, (1, 1, 1), 0.5, torch.Generator())


def test_pixel_mask_covers_the_cells_of_its_units() -> None:
    units, cell, window = (2, 2, 3), (2, 3, 4), (3, 5, 10)
    mask = draw_masks(2, units, 0.5, torch.Generator().manual_seed(0))
    found = pixel_mask(mask, units, cell, window)
    assert found.shape == (2, 1, *window)
    for b, t, h, w in np.ndindex(2, *window):
        assert found[b, 0, t, h, w] == mask[b, ((t // 2) * 2 + h // 3) * 3 + w // 4]


@pytest.mark.parametrize("by_area", [False, True])
def test_errors_and_weights_equal_numpy(by_area: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (2, CHANNELS, 4, 6, 5)
    prediction, target = (torch.randn(shape, generator=generator) for _ in range(2))
    valid = torch.rand(shape, generator=generator) < 0.7
    hidden = torch.rand(2, 1, *shape[2:], generator=generator) < 0.5
    target = target.masked_fill(~valid, torch.nan)
    latitude = torch.tensor([[90.0], [20.0]]) - torch.arange(6) * 7
    prediction.requires_grad_()
    weight_of = value_weights(hidden, valid, latitude if by_area else None)
    found = squared_errors(prediction, target, weight_of), sum_by_channel(weight_of)
    sums, weights = np.zeros(CHANNELS), np.zeros(CHANNELS)
    errors = (prediction.detach() - target).square()
    for b, c, t, h, w in np.ndindex(*shape):
        if hidden[b, 0, t, h, w] and valid[b, c, t, h, w]:
            weight = math.cos(math.radians(latitude[b, h])) if by_area else 1.0
            sums[c] += weight * float(errors[b, c, t, h, w])
            weights[c] += weight
    np.testing.assert_allclose(found[0].detach().numpy(), sums, rtol=1e-5)
    np.testing.assert_allclose(found[1].numpy(), weights, rtol=1e-5)
    found[0].sum().backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert not prediction.grad[~(hidden & valid)].any()


def test_each_value_of_a_cell_has_its_own_output_in_place() -> None:
    """The readout is a permutation: writing the numbers of a cell's outputs shows where each lands."""
    model = model_of((6, 20, 28))
    units, cell = model.units, model.config.cell
    numbers = torch.arange(math.prod(units) * CHANNELS * math.prod(cell)).view(1, *units, -1)
    image = model._pixels(numbers)
    values = numbers.view(*units, CHANNELS, *cell).numpy()
    for c, t, h, w in np.ndindex(CHANNELS, *model.window):
        (ti, tr), (hi, hr), (wi, wr) = (divmod(p, size) for p, size in zip((t, h, w), cell, strict=True))
        assert image[0, c, t, h, w] == values[ti, hi, wi, c, tr, hr, wr]


def test_training_on_a_batch_lowers_the_loss_and_a_state_dict_restores_it() -> None:
    model = model_of((4, 16, 16), drop_path=0.0).train()
    axes = torch.meshgrid(*(torch.arange(size) / 8 for size in model.window), indexing="ij")
    data = torch.stack([torch.sin(axes[1] + axes[2] + b + c) for b in range(2) for c in range(CHANNELS)])
    data = data.view(2, CHANNELS, *model.window)
    _, context = inputs_of(model.window)
    mask = masks_of(model)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)

    def loss_of(net: SatSwinMAE) -> Tensor:
        weights = value_weights(pixels_of(net, mask), torch.ones_like(data, dtype=torch.bool))
        return (squared_errors(net(data, mask, **context), data, weights) / sum_by_channel(weights)).mean()

    first = float(loss_of(model).detach())
    for _ in range(30):
        optimiser.zero_grad()
        loss_of(model).backward()
        optimiser.step()
    last = float(loss_of(model).detach())
    assert last < first / 4
    restored = SatSwinMAE(model.config, CHANNELS, model.window)
    restored.load_state_dict(model.state_dict())
    assert float(loss_of(restored).detach()) == last

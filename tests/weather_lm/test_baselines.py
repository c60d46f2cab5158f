"""Guesses of hidden values that need no model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator

from tasks.mae import baselines
from tasks.mae.baselines import _shifts, best_paces, persistence


def hide(shape: tuple[int, ...], *boxes: tuple[slice, ...]) -> np.ndarray:
    visible = np.ones(shape, bool)
    for box in boxes:
        visible[box] = False
    return visible


def interpolation(data: np.ndarray, visible: np.ndarray, climate: np.ndarray, *paces: float) -> np.ndarray:
    return baselines.interpolation(data, visible, climate, np.array(paces or [1.0] * len(data)))


def test_interpolation_restores_a_field_that_is_linear_in_time_and_space():
    t, y, x = np.meshgrid(np.arange(6.0), np.arange(8.0), np.arange(7.0), indexing="ij")
    data = np.stack([2 * t - y + 0.5 * x, 3 - t]).astype(np.float32)
    visible = hide(data.shape, (slice(None), slice(2, 4), slice(2, 5), slice(1, 4)))
    found = interpolation(np.where(visible, data, 99), visible, np.zeros_like(data))
    np.testing.assert_allclose(found, data, atol=1e-3)


def isolated(shape: tuple[int, int, int]) -> np.ndarray:
    """Hide every third cell in every direction, so that all neighbours of a hidden one are visible."""
    visible = np.ones(shape, bool)
    visible[1:-1:3, 1:-1:3, 1:-1:3] = False
    return visible


def test_what_visible_values_depart_from_the_climate_by_is_interpolated():
    """Departures that are linear in space and noise in time: where a step is far, they are told from their own time,
    and where it is near, from the steps before and after.
    """
    random = np.random.default_rng(0)
    shape = (2, 9, 8, 8)
    y, x = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    a, b, c = random.standard_normal((3, 2, 9, 1, 1))
    departures = (a + b * y + c * x).astype(np.float32)
    climate = random.standard_normal(shape).astype(np.float32)
    data, visible = climate + departures, np.repeat(isolated(shape[1:])[None], 2, 0)
    found = interpolation(np.where(visible, data, 99), visible, climate, 4, 1 / 4)
    expected = data.copy()
    for t, row, column in np.argwhere(~visible[1]):
        before, after = (departures[1, s, row, column] for s in (t - 1, t + 1))
        expected[1, t, row, column] = climate[1, t, row, column] + (before + after) / 2
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected - data)[1][~visible[1]].max() > 1


@pytest.mark.parametrize("pace", [1, 4, 1 / 4])
@pytest.mark.parametrize("seed", range(3))
def test_interpolation_from_the_rims_of_what_is_hidden_is_that_from_everything(seed, pace, monkeypatch):
    """Shifts of a hundredth of a cell leave one triangulation only, so that both have to find it."""
    monkeypatch.setattr("tasks.mae.baselines.SHIFT", 0.01)
    _shifts.cache_clear()
    random = np.random.default_rng(seed)
    data = random.standard_normal((1, 5, 9, 8)).astype(np.float32)
    visible = np.repeat(np.repeat(random.random((1, 5, 3, 4)) < 0.6, 3, 2), 2, 3)
    visible &= random.random(data.shape) < 0.97
    found = interpolation(data, visible, np.zeros_like(data), pace)[~visible]
    cells, hidden, size = np.argwhere(visible[0]), np.argwhere(~visible[0]), np.array([pace, 1, 1])
    points = (cells + _shifts(data.shape[1:])[visible[0]]) * size
    whole = LinearNDInterpolator(points, data[visible])(hidden * size)
    _shifts.cache_clear()
    on_a_face = ((hidden == 0) | (hidden == np.array(data.shape[1:]) - 1)).any(1)  # there the shifts alone decide
    inside = np.isfinite(whole) & ~on_a_face
    assert inside.sum() > 40
    np.testing.assert_allclose(found[inside], whole[inside], atol=1e-5)
    outside = ~np.isfinite(whole) & ~on_a_face
    for cell, value in zip(hidden[outside], found[outside], strict=True):
        distances = np.linalg.norm((cells - cell) * size, axis=-1)
        assert value in data[visible][np.isclose(distances, distances.min())], "the value of a nearest visible cell"


def test_channels_with_values_of_their_own_missing_are_interpolated_apart():
    t, y, x = np.meshgrid(np.arange(4.0), np.arange(6.0), np.arange(6.0), indexing="ij")
    data = np.stack([t + y, y + x]).astype(np.float32)
    visible = hide(data.shape, (slice(None), 1, 2, 2), (1, slice(None), slice(3, 5), slice(3, 5)))
    found = interpolation(np.where(visible, data, 1e6), visible, np.zeros_like(data))
    np.testing.assert_allclose(found, data, atol=1e-3)


def test_a_channel_without_enough_values_falls_back_to_the_climate():
    data = np.ones((1, 2, 3, 3), np.float32)
    visible = np.zeros(data.shape, bool)
    visible[0, 0, 0, :2] = True
    found = interpolation(data, visible, np.full_like(data, 7))
    assert (found[~visible] == 7).all()
    assert (found[visible] == 1).all()


def test_persistence_takes_the_nearest_visible_step_and_of_two_the_earlier():
    data = np.arange(5, dtype=np.float32).reshape(1, 5, 1, 1)
    visible = np.array([True, False, False, False, True]).reshape(data.shape)
    found = persistence(np.where(visible, data, -9), visible, np.full_like(data, 50))
    assert found.ravel().tolist() == [0, 0, 0, 4, 4]


def test_persistence_falls_back_to_the_climate_where_nothing_is_ever_visible():
    data = np.zeros((1, 3, 1, 2), np.float32)
    visible = hide(data.shape, (0, slice(None), 0, 1))
    found = persistence(data, visible, np.full_like(data, 5))
    assert (found[..., 0] == 0).all()
    assert (found[..., 1] == 5).all()


def test_outside_of_the_visible_cells_the_nearest_one_stands():
    """Only the first three columns are seen: further east there is nothing to interpolate between."""
    t, y, x = np.meshgrid(np.arange(3.0), np.arange(4.0), np.arange(6.0), indexing="ij")
    data = (10 * t + y + 100 * x)[None].astype(np.float32)
    visible = hide(data.shape, (slice(None), slice(None), slice(None), slice(3, 6)))
    found = interpolation(np.where(visible, data, -1), visible, np.zeros_like(data))
    np.testing.assert_allclose(found[..., 3:], np.broadcast_to(data[..., 2:3], (1, 3, 4, 3)), atol=1e-3)


def test_visible_cells_of_one_plane_are_taken_where_they_are_nearest():
    """One step alone is seen, so there is no volume to interpolate in."""
    data = np.arange(3 * 4 * 5, dtype=np.float32).reshape(1, 3, 4, 5)
    visible = hide(data.shape, (slice(None), slice(1, 3)))
    found = interpolation(np.where(visible, data, -1), visible, np.zeros_like(data))
    np.testing.assert_array_equal(found[0, 1], data[0, 0])
    np.testing.assert_array_equal(found[0, 2], data[0, 0])


def test_five_values_in_a_volume_are_enough_and_four_are_not():
    data = np.full((1, 3, 3, 3), 4, np.float32)
    visible = np.zeros(data.shape, bool)
    for t, y, x in [(0, 0, 0), (2, 0, 0), (0, 2, 0), (0, 0, 2), (2, 2, 2)]:
        visible[0, t, y, x] = True
    climate = np.zeros_like(data)
    assert interpolation(data, visible, climate)[0, 1, 1, 1] == 4
    visible[0, 2, 2, 2] = False
    assert interpolation(data, visible, climate)[0, 1, 1, 1] == 0


def test_where_all_is_seen_nothing_is_guessed():
    data = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    np.testing.assert_array_equal(interpolation(data, np.ones(data.shape, bool), np.zeros_like(data)), data)


def test_each_channel_gets_the_pace_with_its_smallest_error_and_edges_are_widened():
    asked = []

    def errors(pace: float) -> np.ndarray:
        asked.append(pace)
        power = np.log2(pace)
        return np.array([abs(power - 1), abs(power - 4), abs(power + 2), 7.0, 0.0])

    assert best_paces(errors).tolist() == [2, 16, 1 / 4, 1, 1]
    assert sorted(asked) == [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16]


def test_the_search_for_a_pace_ends_where_one_direction_is_all_that_counts():
    assert best_paces(lambda pace: np.array([-pace, pace, 1.0])).tolist() == [16, 1 / 16, 1]

"""What a model learned from is no test for it: which images and which weather are refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flows import unseen

MODEL = SimpleNamespace(kind="model", key="m" * 24)
DAY = datetime(2024, 3, 1)


def made(name: str, **content: Any) -> Any:
    """Return an asset of that content; equal names are equal assets."""
    return SimpleNamespace(kind="data", key=name * 24, fingerprint=name, fetch=lambda: None, **content)


def days(first: int, last: int) -> SimpleNamespace:
    return SimpleNamespace(start=DAY + timedelta(days=first), end=DAY + timedelta(days=last))


@pytest.fixture
def learned(monkeypatch):
    """Let the model be made from these assets; the blocks, images and grid of each are what it was made with."""

    def from_(*own: Any) -> None:
        monkeypatch.setattr(unseen, "all_made_from", lambda store, model, kind: [*own])

    monkeypatch.setattr(
        unseen, "made_from", lambda store, asset, kind: SimpleNamespace(fetch=asset.fetch, folder=asset)
    )
    monkeypatch.setattr(unseen.WindowStore, "open", lambda asset: asset.grid)
    monkeypatch.setattr(unseen, "_blocks", lambda asset, split: asset.blocks.get(split, ()))
    monkeypatch.setattr(
        unseen, "_images", lambda store, index, splits: set().union(*(index.images.get(split, ()) for split in splits))
    )
    return from_


def weather(name: str, blocks: Mapping[str, SimpleNamespace], west: float = 0.0) -> Any:
    grid = SimpleNamespace(latitude=np.arange(40.0, 44.0), longitude=west + np.arange(4.0))
    return made(name, blocks={split: (block,) for split, block in blocks.items()}, grid=grid)


OWN = {"train": days(0, 9), "validation": days(20, 29), "test": days(40, 49)}


@pytest.mark.parametrize(
    ("test", "west", "refused"),
    [
        (days(10, 19), 0.0, False),
        (days(9, 12), 0.0, True),
        (days(29, 39), 0.0, True),
        (days(12, 20), 0.0, True),
        (days(2, 3), 0.0, True),
        (days(-5, 60), 0.0, True),
        (days(30, 60), 0.0, False),
        (days(2, 3), 4.0, False),
        (days(2, 3), 3.0, True),
        (days(2, 3), 363.0, True),
        (days(2, 3), 364.0, False),
    ],
    ids=[
        "between", "last day of training", "last day of validation", "first day of validation", "within", "around",
        "its own test", "beside it", "a column of it", "a column of it, once round", "beside it, once round",
    ],
)  # fmt: skip
def test_weather_of_a_time_and_place_that_a_model_knows_is_refused(learned, test, west, refused):
    learned(weather("a", OWN))
    given = weather("b", {"train": days(0, 9), "test": test}, west)
    if not refused:
        unseen.require_unseen_weather(None, MODEL, given)
        return
    known = "2024-03-01 to 2024-03-10" if test.start <= OWN["train"].end else "2024-03-21 to 2024-03-30"
    with pytest.raises(ValueError, match=f"tests on {test.start:%Y-%m-%d} to .* chosen on {known} of the same region"):
        unseen.require_unseen_weather(None, MODEL, given)


def test_every_training_set_that_a_model_comes_from_counts(learned):
    learned(weather("a", OWN, west=100.0), weather("c", {"train": days(60, 70)}))
    unseen.require_unseen_weather(None, MODEL, weather("b", {"test": days(2, 3)}))
    with pytest.raises(ValueError, match="2024-04-30 to 2024-05-10"):
        unseen.require_unseen_weather(None, MODEL, weather("b", {"test": days(65, 66)}))


def test_the_training_set_of_the_model_itself_may_have_blocks_side_by_side(learned):
    own = weather("a", OWN | {"test": days(9, 12)})
    learned(own)
    unseen.require_unseen_weather(None, MODEL, own)


def test_images_that_a_model_knows_are_counted(learned):
    own = made("a", images={"train": {"x", "y"}, "validation": {"z"}, "test": {"t"}})
    learned(own)
    unseen.require_unseen_images(None, MODEL, own)
    unseen.require_unseen_images(None, MODEL, made("b", images={"train": {"x"}, "test": {"t", "u"}}))
    with pytest.raises(
        ValueError, match=r"^2 of the 3 test images of data/bbbbbbbbbbbb are among those that model/mmm"
    ):
        unseen.require_unseen_images(None, MODEL, made("b", images={"test": {"y", "z", "t"}}))
    learned(made("c", images={"train": set()}), own)
    with pytest.raises(ValueError, match=r"^1 of the 1 test"):
        unseen.require_unseen_images(None, MODEL, made("b", images={"test": {"x"}}))
    learned()
    unseen.require_unseen_images(None, MODEL, made("b", images={"test": {"x"}}))

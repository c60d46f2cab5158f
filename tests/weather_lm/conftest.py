"""The tiny pipeline, built once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.assets import Asset, AssetStore
from tests.warm_training import start_warm
from tests.weather_lm.tiny import CONFIG, build


@pytest.fixture(scope="package")
def warm_trainings() -> Iterator[None]:
    """Training processes that need not import everything anew."""
    with pytest.MonkeyPatch.context() as patch:
        start_warm(patch)
        yield


@pytest.fixture(scope="package")
def built(warm_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[AssetStore, Asset]:
    """Assets of the whole pipeline, and its report."""
    return build(tmp_path_factory.mktemp("weather_lm") / "assets", CONFIG)

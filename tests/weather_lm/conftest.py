"""The tiny pipeline, built once."""

from __future__ import annotations

import pytest

from storage.assets import Asset, AssetStore
from tests.weather_lm.tiny import CONFIG, build


@pytest.fixture(scope="package")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[AssetStore, Asset]:
    """Assets of the whole pipeline, and its report."""
    return build(tmp_path_factory.mktemp("weather_lm") / "assets", CONFIG)

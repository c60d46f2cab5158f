"""The tiny pipeline, built once."""

from __future__ import annotations

import pytest

from storage.assets import Asset, AssetStore
from tests.once import build_once, only
from tests.weather_lm.tiny import CONFIG, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[AssetStore, Asset]:
    """Assets of the whole pipeline, and its report."""
    store = AssetStore(build_once(tmp_path_factory, "weather_lm", lambda root: build(root, CONFIG)))
    return store, only(store, "weather_narration_report")

"""The tiny pipeline, built once."""

from __future__ import annotations

import pytest

from storage.assets import AssetStore
from tests.once import build_once
from tests.vision_language.tiny import build


@pytest.fixture(scope="session")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> AssetStore:
    """Assets of the whole pipeline."""
    return AssetStore(build_once(tmp_path_factory, "vision_language", build))

"""The tiny pipeline, built once."""

from __future__ import annotations

import pytest

from storage.assets import AssetStore
from tests.once import build_once
from tests.trm_vlm.tiny import build


@pytest.fixture(scope="session")
def answered(tmp_path_factory: pytest.TempPathFactory) -> AssetStore:
    """Assets of the whole pipeline."""
    return AssetStore(build_once(tmp_path_factory, "trm_vlm", build))

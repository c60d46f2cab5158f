"""Data for every objective, and the devices that they are tested on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from storage.assets import Asset, AssetStore
from tasks.captions.placed import load_placed
from tasks.narration.documents import make_documents, write_documents
from tests.fire.conftest import fires  # noqa: F401  a fixture
from tests.objectives.cases import Data
from tests.once import only
from tests.trm_vlm.conftest import answered  # noqa: F401  a fixture
from tests.vision_language.conftest import vlm  # noqa: F401  a fixture
from tests.weather_lm.conftest import built  # noqa: F401  a fixture


@pytest.fixture(scope="package")
def data(
    fires: tuple[Path, Path],  # noqa: F811
    built: tuple[AssetStore, Asset],  # noqa: F811
    vlm: AssetStore,  # noqa: F811
    answered: AssetStore,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Data:
    """Small fires, small weather and small images."""
    documents = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    write_documents(documents, make_documents(load_placed(only(built[0], "weather_captions").folder), 0.2))
    return Data(*fires, built[0], documents, vlm, answered)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU; with `make gpu` the GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.fail("there is no GPU here")
    return torch.device(request.param)

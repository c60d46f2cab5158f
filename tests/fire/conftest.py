"""Fixtures of the wildfire tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.assets import Asset, AssetStore
from tests.conftest import shared_data


@pytest.fixture(scope="session")
def fire_data() -> Path:
    """Simulated fires on a real landscape."""
    return shared_data("fire")


@pytest.fixture(scope="session")
def fires(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Cache and split of 30 small generated fires."""
    from configs.fire_data import Decoding, FireSplits, Tokens
    from configs.fire_sample import SampleFires
    from storage.assets import AssetStore
    from tasks.fire.archive import archive_names
    from tasks.fire.cache import fire_cache
    from tasks.fire.records import fire_records
    from tasks.fire.split import fire_split
    from tasks.progress import Silent
    from tasks.samples.fire import fire_sample
    from tasks.session import Session
    from tasks.units import Workers

    sample = SampleFires(fires=30, rows=260, columns=300, largest_crop=72, max_frames=6)
    session = Session(AssetStore(tmp_path_factory.mktemp("fires")), Silent(), workers=Workers("inline"))
    with session.active():
        raw = fire_sample(source=sample)
        records = fire_records(
            raw=raw, names=archive_names(raw), decoding=Decoding(), tokens=Tokens(patch=8), on_broken="error"
        )
        cache = fire_cache(records=records)
        split = fire_split(cache=cache, splits=FireSplits())
    return cache.folder, split.folder


@pytest.fixture(scope="session")
def real_cache(fire_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Asset:
    """The token cache of the 320 fires of zona60, P = 16."""
    from tests.fire.archives import cache_of

    return cache_of(AssetStore(tmp_path_factory.mktemp("zona60")), fire_data / "zona60", workers="auto")

"""Fixtures of the wildfire tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.assets import Asset, AssetStore
from tests.conftest import shared_data
from tests.once import build_once, only


@pytest.fixture(scope="session")
def fire_data() -> Path:
    """Simulated fires on a real landscape."""
    return shared_data("fire")


@pytest.fixture(scope="session")
def fires(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Cache and split of 30 small generated fires."""
    store = AssetStore(build_once(tmp_path_factory, "fires", _generate))
    return only(store, "fire_cache").folder, only(store, "fire_split").folder


def _generate(root: Path) -> None:
    from configs.fire_data import Decoding, FireSplits, Tokens
    from configs.fire_sample import SampleFires
    from tasks.fire.archive import archive_names
    from tasks.fire.cache import fire_cache
    from tasks.fire.records import fire_records
    from tasks.fire.split import fire_split
    from tasks.progress import Silent
    from tasks.samples.fire import fire_sample
    from tasks.session import Session
    from tasks.units import Workers

    sample = SampleFires(fires=30, rows=260, columns=300, largest_crop=72, max_frames=6)
    with Session(AssetStore(root), Silent(), workers=Workers("inline")).active():
        raw = fire_sample(source=sample)
        records = fire_records(
            raw=raw, names=archive_names(raw), decoding=Decoding(), tokens=Tokens(patch=8), on_broken="error"
        )
        fire_split(cache=fire_cache(records=records), splits=FireSplits())


@pytest.fixture(scope="session")
def real_cache(fire_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Asset:
    """The token cache of the 320 fires of zona60, P = 16."""
    from tests.fire.archives import cache_of

    root = build_once(
        tmp_path_factory, "zona60", lambda root: cache_of(AssetStore(root), fire_data / "zona60", workers="auto")
    )
    return only(root, "fire_cache")

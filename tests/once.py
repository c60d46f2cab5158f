"""What takes long to build is built once for all processes of a test run."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.assets import Asset, AssetStore


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return a folder that the first process to ask has filled by `build`; tests must only read there."""
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    folder, built = place / name, place / f"{name}.built"
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            build(folder)
            built.touch()
    return folder


def linked(root: Path, copy: Path, *without: str) -> None:
    """Make a copy of a root of hard links, without the assets of some kinds: stages that it has are not run again."""
    shutil.copytree(root, copy, copy_function=os.link, ignore=shutil.ignore_patterns(*without, ".locks", ".runs"))


def only(root: Path | AssetStore, kind: str) -> Asset:
    """Return the one asset of a kind."""
    (asset,) = (root if isinstance(root, AssetStore) else AssetStore(root)).assets(kind)
    return asset

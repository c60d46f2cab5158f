"""Opening a root: a folder of assets, or the working folder of an object store."""

from __future__ import annotations

from pathlib import Path

from storage.assets import REMOTE, AssetStore


def open_store(root: Path) -> AssetStore:
    """Return the store of a root."""
    if (root / REMOTE).exists():
        from storage.remote import RemoteStore  # roots on this machine do without

        return RemoteStore(root)
    return AssetStore(root)

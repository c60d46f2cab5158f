"""What `verify` says of files that grew, shrank, changed, were touched, or are gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.assets import Asset, AssetStore, Unit, verify
from storage.manifest import Manifest, fingerprint, now

CONTENT = {"data/a.bin": b"some bytes", "data/b.bin": b"", "notes.txt": b"x" * 5000}


@pytest.fixture
def asset(store: AssetStore) -> Asset:
    """An asset of three files, one of them empty; its files can be written."""
    asset = store.asset("things", "0123456789abcdef01234567")
    workspace = store.workspace(asset)
    for name, content in CONTENT.items():
        path = workspace.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    record = workspace.record(Unit("all", "k"), list(CONTENT), {})
    manifest = Manifest(
        stage="s", kind=asset.kind, key=asset.key, version=1, code="c", config={}, inputs=(), files=record.files,
        units=(), fingerprint=fingerprint(record.files), counts={}, metrics={}, seconds=0, reason="first run",
        software={}, created_at=now(),
    )  # fmt: skip
    published = store.publish(asset, manifest)
    for name in CONTENT:
        (published.folder / name).chmod(0o644)
    return published


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"+")


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def alter_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_what_was_published_is_whole(asset: Asset) -> None:
    assert verify(asset) == verify(asset, deep=True) == []


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("harm", "name", "words"),
    [
        (append, "data/a.bin", "has 11 bytes where 10 were written"),
        (append, "data/b.bin", "has 1 bytes where 0 were written"),
        (append, "notes.txt", "has 5001 bytes where 5000 were written"),
        (shorten, "data/a.bin", "has 9 bytes where 10 were written"),
        (shorten, "notes.txt", "has 4999 bytes where 5000 were written"),
        (Path.unlink, "data/a.bin", "is missing"),
        (Path.unlink, "data/b.bin", "is missing"),
    ],
)
def test_another_size_is_noticed_and_named(
    asset: Asset, harm: Callable[[Path], object], name: str, words: str, deep: bool
) -> None:
    harm(asset.folder / name)
    assert [str(damage) for damage in verify(asset, deep=deep)] == [f"output file {name} {words}"]


def test_another_content_of_the_same_size_is_noticed_by_looking_deeply(asset: Asset) -> None:
    alter_last_byte(asset.folder / "notes.txt")
    assert verify(asset) == []
    (damage,) = verify(asset, deep=True)
    assert (damage.path, damage.what) == ("notes.txt", "has other content than was written (SHA-256 differs)")


def test_sizes_are_all_that_is_looked_at_by_default(asset: Asset, store: AssetStore) -> None:
    place = asset.folder / "data" / "a.bin"
    before = place.stat()
    place.write_bytes(b"SOME BYTES")
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert verify(asset) == store.verify(asset) == []
    assert asset.manifest.files[0].damage(asset.folder) is None
    (damage,) = store.verify(asset, deep=True)
    assert "data/a.bin" in str(damage)


def test_a_file_that_was_only_touched_is_whole(asset: Asset) -> None:
    for name in CONTENT:
        os.utime(asset.folder / name, (1, 1))
    assert verify(asset) == verify(asset, deep=True) == []


def test_a_file_beside_the_declared_ones_is_noticed(asset: Asset) -> None:
    (asset.folder / "data" / "c.bin").touch()
    assert [str(d) for d in verify(asset)] == ["output file data/c.bin does not belong to the asset"]


def test_every_damage_is_told(asset: Asset) -> None:
    append(asset.folder / "data/a.bin")
    (asset.folder / "notes.txt").unlink()
    assert [damage.path for damage in verify(asset)] == ["data/a.bin", "notes.txt"]

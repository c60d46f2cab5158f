"""Assets: immutable published folders with a manifest, the store that holds them, and the workspaces they grow in.

Layout below the root:

    <kind>/<key>/             a published asset: its files and `manifest.json`
    <kind>/<key>.partial/     a workspace: files of finished units, and `.units/`, their ledger
    .locks/                   kernel locks: `build` (one writer per key), `use` (readers, against gc)
    .pins/ .runs/ .damaged/   notes: what gc must keep, records of runs, what `verify` found wrong
    .remote                   the URL of the object store where published assets lie, if they do not lie here
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from storage.files import fsync, is_temporary, remove_tree, walk_files, write_atomic
from storage.hashing import file_sha256
from storage.locks import FileLock
from storage.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    ManifestError,
    UnitEntry,
    UnitRecord,
    load_manifest,
    now,
    read_manifest,
    sealed,
)

IN_KEY = False

LEDGER = ".units"
SCRATCH = ".scratch"
STEPS = "steps"
CHECKPOINTS = f"{SCRATCH}/checkpoints/step-*"
REMOTE = ".remote"
PINS = ".pins"
DAMAGED = ".damaged"
KEY_LENGTH = 24  # hex digits of the SHA-256 that name a folder: 96 bits


class Asset:
    """A published asset. Cheap to make; the manifest is read when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def kind(self) -> str:
        """The asset's kind, the folder above it."""
        return self.folder.parent.name

    @property
    def key(self) -> str:
        """The key that names the folder."""
        return self.folder.name

    @property
    def name(self) -> str:
        """What notes and people call it: `kind/key`."""
        return f"{self.kind}/{self.key}"

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest; `ManifestError` when it is missing or damaged."""
        path = self.folder / MANIFEST
        manifest = load_manifest(path)
        if manifest.key != self.key:
            raise ManifestError(path, "is that of another asset")
        return manifest

    @property
    def place(self) -> str:
        """Where its files are, for people."""
        return str(self.folder)

    def fetch(
        self, needs: Callable[[str], bool] = lambda name: True, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        """See to it that the files that are needed lie in `folder`, where they do not lie already."""

    @property
    def fingerprint(self) -> str:
        """The output fingerprint: equal bytes are equal assets."""
        return self.manifest.fingerprint

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(f.size for f in self.manifest.files)

    def __repr__(self) -> str:
        return f"Asset({self.kind}/{self.key[:12]})"


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong with a published asset, in words."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"output file {self.path} {self.what}"


def verify(asset: Asset, *, deep: bool = False) -> list[Damage]:
    """Compare an asset's folder with its manifest: existence and sizes; `deep` also every file's SHA-256."""
    try:
        manifest = asset.manifest
    except ManifestError as error:
        return [Damage(MANIFEST, error.what)]
    damages = []
    expected = {f.path: f for f in manifest.files}
    present = set(walk_files(asset.folder)) - {MANIFEST}
    for extra in sorted(present - expected.keys()):
        damages.append(Damage(extra, "does not belong to the asset"))
    for path, record in expected.items():
        if what := record.damage(asset.folder, deep=deep):
            damages.append(Damage(path, what))
    return damages


@dataclass(frozen=True, slots=True)
class Holding:
    """What a root holds under the name of an asset: the published asset, or unfinished work."""

    asset: Asset
    published: bool
    changed: datetime
    """When it was made, or last worked on."""
    folders: tuple[Path, ...]
    """On this machine."""
    stored: int = 0
    """Bytes on the object store, if there is one."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work for `Workspace`: a readable id, and everything that shapes its bytes as its key."""

    id: str
    key: str
    payload: Any = None


Upload = Callable[[Path, Sequence[FileRecord]], None]
"""Given a workspace's folder and the files of a finished unit in it."""


class Workspace:
    """The folder in which an asset grows, unit by unit; it survives a crash and is continued.

    It travels to worker processes. `upload` brings the files of a finished unit to where they shall outlive this
    machine; it must be importable by name.
    """

    def __init__(self, folder: Path, upload: Upload | None = None) -> None:
        self.folder = folder
        self._upload = upload
        self._ledger = folder / LEDGER
        self._steps: int | None = None

    @property
    def scratch(self) -> Path:
        """A folder for temporary files; it never becomes part of the asset."""
        path = self.folder / SCRATCH
        path.mkdir(parents=True, exist_ok=True)
        return path

    def expect(self, total: int) -> None:
        """Note how many units the asset will have, for those who ask how far it is."""
        write_atomic(self._ledger / "total", str(total))

    def expect_steps(self, total: int) -> None:
        """Note how many steps the work takes that the latest bar is about, for those who ask how far a training is."""
        if total != self._steps:
            self._steps = total
            write_atomic(self.scratch / STEPS, str(total))

    def progress(self) -> tuple[int, int | None]:
        """Return finished units, or steps of the newest checkpoint, and, once it is known, their expected number."""
        if units := sum(1 for _ in self._ledger.glob("*.json")):
            return units, _number_in(self._ledger / "total")
        steps = [int(path.name.partition("-")[2]) for path in self.folder.glob(CHECKPOINTS)]
        if steps or not (self._ledger / "total").exists():
            return max(steps, default=0), _number_in(self.folder / SCRATCH / STEPS)
        return 0, _number_in(self._ledger / "total")

    def finished(self) -> dict[str, UnitRecord]:
        """Return the ledger's units whose files are all there in full size; others are struck off."""
        units = {}
        for path in sorted(self._ledger.glob("*.json")):
            try:
                record = UnitRecord.model_validate_json(path.read_bytes())
                whole = all((self.folder / f.path).stat().st_size == f.size for f in record.files)
            except (ValidationError, FileNotFoundError):
                whole = False
            if whole:
                units[record.id] = record
            else:
                path.unlink()
        return units

    def record(self, unit: Unit, files: Iterable[str], result: Mapping[str, Any]) -> UnitRecord:
        """Write a finished unit into the ledger; from here on it is never done again."""
        records = []
        for name in sorted(files):
            assert not is_temporary(name), f"unit {unit.id} declares {name}, but hidden files are never published"
            path = self.folder / name
            fsync(path)
            records.append(FileRecord(path=name, size=path.stat().st_size, sha256=file_sha256(path)))
        record = UnitRecord(id=unit.id, key=unit.key, files=tuple(records), result=dict(result))
        if self._upload is not None:
            self._upload(self.folder, records)
        self._write(record)
        return record

    def _write(self, record: UnitRecord) -> None:
        write_atomic(self._ledger / f"{record.id}.json", record.model_dump_json())

    def restore(self, manifest: Manifest, damaged: Set[str]) -> None:
        """Write the ledger anew from a manifest, without the units that own damaged files."""
        files = {f.path: f for f in manifest.files}
        for entry in manifest.units:
            if damaged.isdisjoint(entry.files):
                records = tuple(files[name] for name in entry.files)
                self._write(UnitRecord(id=entry.id, key=entry.key, files=records, result=entry.result))

    def sweep(self, keep: Set[str]) -> None:
        """Delete every file but these, the ledger and the scratch files."""
        for name in set(walk_files(self.folder)) - keep:
            if not name.startswith((f"{LEDGER}/", f"{SCRATCH}/")):
                (self.folder / name).unlink()

    def strike(self, record: UnitRecord) -> None:
        """Take a unit off the ledger, and its files away."""
        (self._ledger / f"{record.id}.json").unlink()
        for file in record.files:
            (self.folder / file.path).unlink(missing_ok=True)

    def adopt(
        self,
        units: Sequence[Unit],
        sources: Iterable[Asset],
        rename: Callable[[str, Unit], str] | None = None,
    ) -> list[UnitRecord]:
        """Take over units with unchanged keys from published assets, by hard link.

        `rename` maps a file of the old unit to its name in the new asset, where position enters names.
        """
        wanted = {unit.key: unit for unit in units}
        adopted = []
        for asset in sources:
            try:
                manifest = asset.manifest
            except ValueError:
                continue
            sizes = {f.path: f for f in manifest.files}
            for entry in manifest.units:
                unit = wanted.get(entry.key)
                if unit is None or not self._whole(asset, entry, sizes):
                    continue
                records = []
                for name in entry.files:
                    target = rename(name, unit) if rename else name
                    _link(asset.folder / name, self.folder / target)
                    records.append(sizes[name].model_copy(update={"path": target}))
                record = UnitRecord(id=unit.id, key=unit.key, files=tuple(records), result=entry.result)
                self._write(record)
                adopted.append(record)
                del wanted[entry.key]
            if not wanted:
                break
        return adopted

    @staticmethod
    def _whole(asset: Asset, entry: UnitEntry, sizes: Mapping[str, FileRecord]) -> bool:
        try:
            asset.fetch(entry.files.__contains__)
            return all((asset.folder / n).stat().st_size == sizes[n].size for n in entry.files)
        except FileNotFoundError:
            return False


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def root_name(root: Path) -> str:
    """Return what people call a root: the URL of its object store, or its path."""
    try:
        return (root / REMOTE).read_text().strip()
    except FileNotFoundError:
        return str(root)


class AssetStore:
    """All assets below one root folder."""

    where = ""
    """What follows `verified by size`, for people."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self.name = root_name(self.root)

    def asset(self, kind: str, key: str) -> Asset:
        """Return the handle of an asset, published or not."""
        return Asset(self.root / kind / key[:KEY_LENGTH])

    def published(self, asset: Asset) -> bool:
        """Whether there is such an asset, whole or damaged."""
        return asset.folder.exists()

    def verify(self, asset: Asset, *, deep: bool = False) -> list[Damage]:
        """Compare an asset with its manifest."""
        return verify(asset, deep=deep)

    def remove(self, asset: Asset) -> None:
        """Delete an asset."""
        remove_tree(asset.folder)
        self.unmark(asset)

    def abandon(self, asset: Asset) -> None:
        """Delete the unfinished work on an asset."""
        remove_tree(self.workspace(asset).folder)

    def workspace(self, asset: Asset) -> Workspace:
        """Return the workspace that becomes this asset."""
        return Workspace(asset.folder.with_name(f"{asset.key}.partial"))

    def build_lock(self, asset: Asset) -> FileLock:
        """The lock of the one process that may write this asset."""
        return FileLock(self.root / ".locks" / f"{asset.kind}-{asset.key}.build")

    def use_lock(self, asset: Asset, *, shared: bool = True) -> FileLock:
        """The lock that users of an asset share, so that gc leaves it alone."""
        return FileLock(self.root / ".locks" / f"{asset.kind}-{asset.key}.use", shared=shared)

    def assets(self, kind: str | None = None) -> list[Asset]:
        """Return every published asset (of one kind), newest first."""
        pattern = f"{kind or '[!.]*'}/[0-9a-f]*/{MANIFEST}"
        manifests = [(p.stat().st_mtime_ns, p) for p in self.root.glob(pattern) if "." not in p.parent.name]
        return [Asset(path.parent) for _, path in sorted(manifests, reverse=True)]

    def workspaces(self) -> list[Path]:
        """Return the folders of all workspaces."""
        return sorted(self.root.glob("[!.]*/*.partial"))

    def holdings(self) -> list[Holding]:
        """Return everything that takes room: published assets, and unfinished work."""
        published = [Holding(asset, True, made_at(asset), (asset.folder,)) for asset in self.assets()]
        unfinished = [Holding(Asset(f.with_suffix("")), False, written_at(f), (f,)) for f in self.workspaces()]
        return published + unfinished

    def find(self, name: str) -> Asset:
        """Return the one asset that `kind`, `kind/key…`, `key…` or a path means; the newest of a kind."""
        path = Path(name)
        if (path / MANIFEST).is_file():
            return Asset(path.absolute())
        kind, _, key = name.rpartition("/")
        everything = self.assets()
        hits = [a for a in everything if a.key.startswith(key) and kind in ("", a.kind)]
        if not kind and (newest := next((a for a in everything if a.kind == name), None)):
            return newest
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise ValueError(f"{name!r} means several assets: {', '.join(f'{a.kind}/{a.key[:12]}' for a in hits[:8])}")
        kinds = ", ".join(sorted({a.kind for a in everything})) or "none"
        raise ValueError(f"no asset {name!r} below {self.name}; kinds there: {kinds}")

    def publish(self, asset: Asset, manifest: Manifest) -> Asset:
        """Turn the workspace into the asset: the manifest, then one rename of the whole folder."""
        folder = self.workspace(asset).folder
        write_atomic(folder / MANIFEST, sealed(manifest))
        return self._finish_publishing(asset, manifest)

    def _finish_publishing(self, asset: Asset, manifest: Manifest) -> Asset:
        folder = self.workspace(asset).folder
        for leftover in (LEDGER, SCRATCH):
            shutil.rmtree(folder / leftover, ignore_errors=True)
        expected = {f.path for f in manifest.files}
        for name in set(walk_files(folder)) - expected - {MANIFEST}:
            (folder / name).unlink()
        for name in expected:
            (folder / name).chmod(0o444)
        _remove_empty_folders(folder)
        folder.replace(asset.folder)
        fsync(asset.folder.parent)
        self.unmark(asset)
        return Asset(asset.folder)

    def recover(self, asset: Asset) -> None:
        """Bring a workspace that holds a manifest to a clean state.

        It is one of a publication that a kill cut off, which is completed, or one of a damaged asset, which
        becomes a ledger of the units whose files are still right. What a kill left while it was deleted goes.
        """
        for trash in asset.folder.parent.glob(f".{asset.key}*.trash"):
            shutil.rmtree(trash, ignore_errors=True)
        workspace = self.workspace(asset)
        if not (workspace.folder / MANIFEST).exists():
            return
        manifest = read_manifest(workspace.folder / MANIFEST)
        if manifest is None:
            remove_tree(workspace.folder)
            return
        damaged = {f.path for f in manifest.files if f.damage(workspace.folder, deep=True)}
        if not damaged:
            self._finish_publishing(asset, manifest)
            return
        workspace.restore(manifest, damaged)
        (workspace.folder / MANIFEST).unlink()

    def demote(self, asset: Asset, *, deep: bool = False) -> None:
        """Turn a damaged asset back into a workspace that keeps every unit whose files are still right.

        `deep` says that it was found damaged by content, for stores that do not compare content anyway.
        """
        workspace = self.workspace(asset)
        remove_tree(workspace.folder)
        asset.folder.replace(workspace.folder)
        manifest = read_manifest(workspace.folder / MANIFEST)
        if manifest is not None:
            for name in set(walk_files(workspace.folder)) - {f.path for f in manifest.files} - {MANIFEST}:
                (workspace.folder / name).unlink()
        self.recover(asset)

    def note_names(self, place: str) -> list[str]:
        """Return the names of the small texts that are kept in a place of the root, sorted."""
        folder = self.root / place
        return sorted(name for name in walk_files(folder) if not is_temporary(name)) if folder.exists() else []

    def note(self, place: str, name: str) -> str | None:
        """Return a note; None where there is none."""
        try:
            return (self.root / place / name).read_text()
        except FileNotFoundError:
            return None

    def notes(self, place: str) -> dict[str, str]:
        """Return all notes of a place by their names, sorted."""
        texts = {name: self.note(place, name) for name in self.note_names(place)}
        return {name: text for name, text in texts.items() if text is not None}

    def write_note(self, place: str, name: str, text: str) -> None:
        """Keep a note in the root, where every machine that uses it finds it."""
        write_atomic(self.root / place / name, text)

    def remove_notes(self, place: str, names: Sequence[str]) -> None:
        """Delete notes; absent ones do not matter."""
        for name in names:
            if (path := self.root / place / name).exists():
                path.unlink(missing_ok=True)

    def share_notes(self, place: str) -> None:
        """Bring notes that only this machine has to where every machine finds them."""

    def pins(self) -> dict[str, str]:
        """Return pinned assets (`kind/key`) and why each was pinned."""
        return self.notes(PINS)

    def pin(self, asset: Asset, note: str) -> None:
        """Keep an asset, and what it was made from, through every gc."""
        self.write_note(PINS, asset.name, note)

    def unpin(self, asset: Asset) -> None:
        """Let gc take an asset again."""
        self.remove_notes(PINS, [asset.name])

    def mark(self, asset: Asset, damages: Iterable[Damage]) -> None:
        """Note what is wrong with an asset: until it is whole, it is compared by content wherever it is looked at."""
        self.write_note(DAMAGED, asset.name, "\n".join(map(str, damages)))

    def marked(self, asset: Asset) -> bool:
        """Whether something was found wrong with an asset."""
        return self.note(DAMAGED, asset.name) is not None

    def unmark(self, asset: Asset) -> None:
        """Trust an asset again."""
        self.remove_notes(DAMAGED, [asset.name])


def made_at(asset: Asset) -> datetime:
    """Return when an asset was made; where its manifest does not tell, when it was last written."""
    try:
        return asset.manifest.created_at
    except ManifestError:
        return written_at(asset.folder)


def written_at(folder: Path) -> datetime:
    """Return when something in a folder was last written, to the second, as `now` is told."""
    try:
        latest = max(path.stat().st_mtime for path in [folder, *(folder / name for name in walk_files(folder))])
    except FileNotFoundError:  # somebody works there
        return now()
    return datetime.fromtimestamp(int(latest), UTC)


def _remove_empty_folders(folder: Path) -> None:
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()


def describe_value(value: Any) -> str:
    """Return a count or metric for people: fractions with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def describe_size(size: float) -> str:
    """Return a size for people; `describe_size(1_500_000) => '1.5 MB'`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

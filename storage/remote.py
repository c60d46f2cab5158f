"""Assets on an object store, behind the root `s3://bucket/prefix`.

Below the URL lie published assets, `<kind>/<key>/`, whose `manifest.json` is written last and removed first, finished
units of assets that have none yet, and the notes: `.pins/`, `.runs/`, `.damaged/`. All else is in a working folder on
this machine: locks, workspaces, Prefect's home, and copies of assets' files as far as they were made or needed here. It
may be deleted at any time; only unfinished work goes with it.

Machines share no lock. Two that make one asset at once write the same names, and the last manifest stays: a key names
what goes into an asset, so both are right; where their bytes differ in size, the next run notices and repairs.

The address and credentials are those of the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, and
AWS_ENDPOINT_URL for stores other than Amazon's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from storage.assets import (
    REMOTE,
    Asset,
    AssetStore,
    Damage,
    Holding,
    Workspace,
    describe_size,
    made_at,
    root_name,
    written_at,
)
from storage.files import fsync, is_temporary, remove_tree, write_atomic
from storage.locks import FileLock
from storage.manifest import LEFTOVER, MANIFEST, FileRecord, Manifest, ManifestError, read_manifest

if TYPE_CHECKING:
    from obstore.store import ObjectStore

IN_KEY = False

THREADS = 8
PART = 16 * 2**20  # bytes that travel in one request, each of which has its own deadline and retries
SENT = ".sent"


def working_folder(url: str) -> Path:
    """Return the folder on this machine that goes with a remote root, made on first use."""
    if not re.fullmatch(r"s3://[^/]+(/.*)?", url):
        raise ValueError(f"root: {url!r} is not understood; give a folder, or s3://bucket/prefix")
    url = url.rstrip("/")
    home = Path(os.environ.get("MILLRACE_CACHE", "~/.cache/millrace")).expanduser().absolute()
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url.removeprefix("s3://"))[:48].strip("-")
    place = f"{url} {os.environ.get('AWS_ENDPOINT_URL', '')}"
    folder = home / f"{readable}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    if not (folder / REMOTE).exists():
        write_atomic(folder / REMOTE, url)
    return folder


class Stored(NamedTuple):
    """What a listing says of an object."""

    size: int
    tag: str
    modified: datetime


class Objects:
    """The objects below a URL. What goes wrong is a `ValueError` in one sentence; an absent one a `FileNotFoundError`.

    It may be sent to other processes, but not used by those that were forked from one that used it already: the
    library's threads do not survive a fork.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def __reduce__(self) -> tuple[Any, ...]:
        return Objects, (self.url,)

    @cached_property
    def _store(self) -> ObjectStore:
        from obstore.store import from_url

        _check_endpoint()
        plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        return from_url(
            self.url,
            client_options={"connect_timeout": "5s", "timeout": "120s", "allow_http": plain},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)},
        )

    @contextlib.contextmanager
    def _using(self) -> Iterator[ObjectStore]:
        """Yield the library's store; its errors become sentences."""
        from obstore.exceptions import BaseError

        _check_process()
        try:
            yield self._store
        except (BaseError, FileNotFoundError) as error:
            text = str(error)
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
                raise FileNotFoundError(f"an object is missing in {self.url}: {_first_line(text)}") from None
            raise ValueError(_sentence(self.url, text)) from None

    def list(self, prefix: str = "") -> dict[str, Stored]:
        """Return all objects below a prefix by their names, which start with it."""
        import obstore

        with self._using() as store:
            found = obstore.list(store, prefix or None).collect()
        return {o["path"]: Stored(o["size"], o["e_tag"] or "", o["last_modified"]) for o in found}

    def read(self, name: str) -> bytes:
        """Return a whole object."""
        import obstore

        with self._using() as store:
            return bytes(obstore.get(store, name).bytes())

    def part(self, name: str, offset: int, size: int) -> bytes:
        """Return a part of an object that is known to reach beyond `offset`."""
        import obstore

        with self._using() as store:
            return bytes(obstore.get_range(store, name, start=offset, length=size))

    def parts(self, name: str, size: int) -> Iterator[bytes]:
        """Yield an object of known size piece by piece."""
        return (self.part(name, start, min(PART, size - start)) for start in range(0, size, PART))

    def write(self, name: str, data: bytes | Path) -> str:
        """Write an object from memory or a file, whole or not at all; return its tag."""
        import obstore

        with self._using() as store:
            return obstore.put(store, name, data, chunk_size=PART)["e_tag"] or ""

    def copy(self, source: str, target: str) -> bool:
        """Copy within the store, no byte of it passing here; return whether the store could."""
        import obstore
        from obstore.exceptions import BaseError

        _check_process()
        try:
            obstore.copy(self._store, source, target)
        except (BaseError, FileNotFoundError):  # gone, or larger than a store copies in one request
            return False
        return True

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; absent ones do not matter."""
        import obstore

        if names:
            with self._using() as store:
                obstore.delete(store, names)


def _check_endpoint() -> None:
    """Refuse an address that the library would not survive."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint is None:
        return
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(f"AWS_ENDPOINT_URL: {endpoint!r} is no address; write it as http://host:9000 or https://host")


_forked_after_use = False


def _check_process() -> None:
    if _forked_after_use:
        raise ValueError(
            "this process was forked from one that had used the object store, whose client does not survive that; "
            "start loader processes with multiprocessing_context='forkserver' or 'spawn'"
        )


def _note_fork() -> None:
    global _forked_after_use
    import sys

    _forked_after_use = "obstore" in sys.modules


os.register_at_fork(after_in_child=_note_fork)


def _first_line(text: str) -> str:
    return " ".join(text.partition("Debug source")[0].split())[:300]


def _sentence(url: str, text: str) -> str:
    """Return what is wrong with a store, and what to do, from the words of an error."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "its address")
    if "NoSuchBucket" in text:
        return f"{url}: there is no such bucket at {endpoint}; create it, or correct the root"
    if "Missing" in text or "169.254.169.254" in text:
        return f"{url}: there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if "error sending request" in text:
        return f"{url}: {endpoint} does not answer; check the network, AWS_ENDPOINT_URL and AWS_REGION"
    if re.search(r"\b40[13]\b", text):
        return f"{url}: access is denied; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do there"
    return f"{url}: the object store failed; try again ({_first_line(text)})"


class RemoteAsset(Asset):
    """An asset on an object store; its folder holds copies of those files that were made or needed on this machine."""

    def __init__(self, folder: Path, objects: Objects) -> None:
        super().__init__(folder)
        self._objects = objects

    @property
    def place(self) -> str:
        """Where its files are, for people and for `RemoteBytes`."""
        return f"{self._objects.url}/{self.kind}/{self.key}"

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest; `ManifestError` when it is missing or damaged."""
        if not (self.folder / MANIFEST).exists():
            with contextlib.suppress(FileNotFoundError):
                write_atomic(self.folder / MANIFEST, self._objects.read(f"{self.kind}/{self.key}/{MANIFEST}"))
        return super().manifest

    def fetch(
        self,
        needs: Callable[[str], bool] = lambda name: True,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Copy files to `folder` that are needed and not there in full size; `FileNotFoundError` when one is gone."""
        wanted = [f for f in self.manifest.files if needs(f.path)]
        if not any(file.damage(self.folder) for file in wanted):
            return
        with FileLock(self.folder.parent.parent / ".locks" / f"{self.kind}-{self.key}.fetch"):
            absent = [file for file in wanted if file.damage(self.folder)]
            tell(f"fetching {len(absent)} files, {describe_size(sum(f.size for f in absent))}, of {self.place}")
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(self._download, absent))

    def _download(self, file: FileRecord) -> None:
        path = self.folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.tmp")
        content = hashlib.sha256()
        with unfinished.open("wb") as out:
            for data in self._objects.parts(f"{self.kind}/{self.key}/{file.path}", file.size):
                content.update(data)
                out.write(data)
        if content.hexdigest() != file.sha256:
            unfinished.unlink()
            raise FileNotFoundError(f"{file.path} in {self.place} has other content than was written")
        fsync(unfinished)
        unfinished.chmod(0o444)
        unfinished.replace(path)


class _Upload(NamedTuple):
    """An object that this machine wrote: the content it was given, and the tag that it got."""

    name: str
    sha256: str
    tag: str


_UPLOADS = TypeAdapter(list[_Upload])


class _Sent:
    """The memory of what was uploaded for an unfinished asset, so that no run uploads it again."""

    def __init__(self, root: Path, kind: str, key: str) -> None:
        self._folder = root / SENT / f"{kind}-{key}"

    def add(self, uploads: Sequence[_Upload]) -> None:
        write_atomic(self._folder / f"{secrets.token_hex(8)}.json", _UPLOADS.dump_json(list(uploads)))

    def read(self) -> set[_Upload]:
        return {
            upload for path in self._folder.glob("[!.]*.json") for upload in _UPLOADS.validate_json(path.read_bytes())
        }

    def clear(self) -> None:
        remove_tree(self._folder)


def upload_unit(workspace: Path, files: Iterable[FileRecord]) -> None:
    """Upload the files of a finished unit to where its asset will be."""
    root, kind, key = workspace.parent.parent, workspace.parent.name, workspace.name.removesuffix(".partial")
    objects = Objects(root_name(root))
    done = [_Upload(f.path, f.sha256, objects.write(f"{kind}/{key}/{f.path}", workspace / f.path)) for f in files]
    _Sent(root, kind, key).add(done)


class RemoteStore(AssetStore):
    """The assets of a remote root; `root` is its working folder on this machine."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.where = f" in {self.name}"
        self._objects = Objects(self.name)

    def asset(self, kind: str, key: str) -> Asset:
        """Return the handle of an asset, published or not."""
        folder = super().asset(kind, key).folder
        return RemoteAsset(folder, self._objects)

    def workspace(self, asset: Asset) -> Workspace:
        """Return the workspace that becomes this asset; what it finishes is uploaded at once."""
        return Workspace(super().workspace(asset).folder, upload_unit)

    def published(self, asset: Asset) -> bool:
        """Whether the asset's manifest is on the store."""
        return MANIFEST in self._files(asset)

    def assets(self, kind: str | None = None) -> list[Asset]:
        """Return every published asset (of one kind), newest first."""
        found = self._objects.list(kind or "")
        manifests = sorted((at.modified, name) for name, at in found.items() if _is_manifest(name))
        listed = [self.asset(*name.split("/")[:2]) for _, name in reversed(manifests)]
        with ThreadPoolExecutor(THREADS) as pool:
            there = list(pool.map(self._renew, listed))
        return [asset for asset, is_there in zip(listed, there, strict=True) if is_there]

    def verify(self, asset: Asset, *, deep: bool = False) -> list[Damage]:
        """Compare the store with the manifest that is there: existence and sizes; `deep` reads every file."""
        there = self._files(asset)
        if there.pop(MANIFEST, None) is None or not self._renew(asset):
            return [Damage(MANIFEST, f"is missing{self.where}")]
        try:
            files = {file.path: file for file in asset.manifest.files}
        except ManifestError as error:
            return [Damage(MANIFEST, f"{error.what}{self.where}")]
        extra = [Damage(name, f"does not belong to the asset{self.where}") for name in sorted(there.keys() - files)]
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda file: self._damage(asset, file, there.get(file.path), deep=deep), files.values())
            return extra + [damage for damage in found if damage]

    def demote(self, asset: Asset, *, deep: bool = False) -> None:
        """Mend a damaged asset, or turn it into a workspace that keeps every unit that is still right.

        The workspace gets copies of what is right on the store and not here; only what is wrong there is uploaded.
        """
        there = self._files(asset)
        manifest = read_manifest(asset.folder / MANIFEST)
        for file in manifest.files if manifest else ():
            stored = there.get(file.path)
            if not self._damage(asset, file, stored, deep=deep):
                assert stored is not None
                with contextlib.suppress(FileNotFoundError):  # other content: it is made or uploaded again
                    asset.fetch(file.path.__eq__)
                    self._sent(asset).add([_Upload(file.path, file.sha256, stored.tag)])
        super().demote(asset, deep=deep)
        if not asset.folder.exists():
            self._objects.delete([self._name(asset, MANIFEST)])

    def remove(self, asset: Asset) -> None:
        """Delete an asset, its manifest first, so that half of it is no asset."""
        names = [self._name(asset, name) for name in self._files(asset) if name != MANIFEST]
        self._objects.delete([self._name(asset, MANIFEST)])
        self._objects.delete(names)
        super().remove(asset)

    def abandon(self, asset: Asset) -> None:
        """Delete the unfinished work on an asset, on the store too, unless another machine has finished it."""
        if MANIFEST not in (there := self._files(asset)):
            self._objects.delete([self._name(asset, name) for name in there])
            self._sent(asset).clear()
            remove_tree(asset.folder)
        super().abandon(asset)

    def holdings(self) -> list[Holding]:
        """Return everything that takes room: published assets, and unfinished work, on the store or here."""
        there = self._objects_by_asset()
        published = [
            Holding(asset, True, made_at(asset), _existing(asset.folder), _bytes(there.pop(asset.name, {}).values()))
            for asset in self.assets()
        ]
        known = {holding.asset.name for holding in published}
        here = {f"{f.parent.name}/{f.stem}" for f in self.root.glob("[!.]*/[0-9a-f]*") if f.is_dir()}
        unfinished = []
        for name in sorted(there.keys() | here):
            asset, objects = self.asset(*name.split("/")), there.get(name, {}).values()
            copies = () if name in known else _existing(asset.folder)
            folders = copies + _existing(self.workspace(asset).folder)
            if folders or objects:
                changed = max([o.modified for o in objects] + [written_at(folder) for folder in folders])
                unfinished.append(Holding(asset, False, changed, folders, _bytes(objects)))
        return published + unfinished

    def _objects_by_asset(self) -> dict[str, dict[str, Stored]]:
        found: dict[str, dict[str, Stored]] = {}
        for name, stored in self._objects.list().items():
            if not name.startswith(".") and name.count("/") > 1:
                kind, key, file = name.split("/", 2)
                found.setdefault(f"{kind}/{key}", {})[file] = stored
        return found

    def note_names(self, place: str) -> list[str]:
        """Return the names of a place's notes; versions before kept records of runs in the working folder."""
        there = {name.removeprefix(f"{place}/") for name in self._objects.list(place)}
        return sorted(there.union(super().note_names(place)))

    def note(self, place: str, name: str) -> str | None:
        """Return a note; None where there is none."""
        try:
            return self._objects.read(f"{place}/{name}").decode()
        except FileNotFoundError:
            return super().note(place, name)

    def notes(self, place: str) -> dict[str, str]:
        """Return all notes of a place by their names, sorted."""
        names = self.note_names(place)
        with ThreadPoolExecutor(THREADS) as pool:
            texts = pool.map(lambda name: self.note(place, name), names)
            return {name: text for name, text in zip(names, texts, strict=True) if text is not None}

    def write_note(self, place: str, name: str, text: str) -> None:
        """Keep a note on the store, where every machine finds it."""
        self._objects.write(f"{place}/{name}", text.encode())

    def remove_notes(self, place: str, names: Sequence[str]) -> None:
        """Delete notes; absent ones do not matter."""
        self._objects.delete([f"{place}/{name}" for name in names])
        super().remove_notes(place, names)

    def share_notes(self, place: str) -> None:
        """Bring notes that only this machine has to where every machine finds them."""
        for name in super().note_names(place):
            if text := super().note(place, name):
                self.write_note(place, name, text)
            super().remove_notes(place, [name])

    def _finish_publishing(self, asset: Asset, manifest: Manifest) -> Asset:
        self._upload(asset, manifest)
        remove_tree(asset.folder)  # copies of an older state
        super()._finish_publishing(asset, manifest)
        self._sent(asset).clear()
        return self.asset(asset.kind, asset.key)

    def _upload(self, asset: Asset, manifest: Manifest) -> None:
        """Bring everything that is not on the store yet there, what other assets have by a copy within it."""
        folder, there = self.workspace(asset).folder, self._files(asset)
        sent = {(upload.name, upload.sha256): upload.tag for upload in self._sent(asset).read()}
        missing = [
            file
            for file in manifest.files
            if file.path not in there or sent.get((file.path, file.sha256)) != there[file.path].tag
        ]
        known = self._elsewhere(asset) if missing else {}

        def send(file: FileRecord) -> None:
            name = self._name(asset, file.path)
            if file.sha256 not in known or not self._objects.copy(known[file.sha256], name):
                self._objects.write(name, folder / file.path)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(send, missing))
        self._objects.delete([self._name(asset, name) for name in there.keys() - {f.path for f in manifest.files}])
        self._objects.write(self._name(asset, MANIFEST), folder / MANIFEST)

    def _elsewhere(self, asset: Asset) -> dict[str, str]:
        """Return where files of other assets of the kind lie on the store, by their content."""
        others = [other for other in self.assets(asset.kind) if other.key != asset.key]
        manifests = [(other, read_manifest(other.folder / MANIFEST)) for other in others]
        return {f.sha256: self._name(other, f.path) for other, whole in manifests if whole for f in whole.files}

    def _files(self, asset: Asset) -> dict[str, Stored]:
        """Return what lies on the store below an asset's name."""
        prefix = self._name(asset, "")
        return {name.removeprefix(prefix): stored for name, stored in self._objects.list(prefix).items()}

    def _renew(self, asset: Asset) -> bool:
        """Bring the copy of the manifest here up to date; return whether there is one."""
        try:
            data = self._objects.read(self._name(asset, MANIFEST))
        except FileNotFoundError:
            return False
        path = asset.folder / MANIFEST
        if not path.exists() or path.read_bytes() != data:
            remove_tree(asset.folder)
            write_atomic(path, data)
        asset.__dict__.pop("manifest", None)
        return True

    def _damage(self, asset: Asset, file: FileRecord, stored: Stored | None, *, deep: bool) -> Damage | None:
        if is_temporary(file.path):
            return Damage(file.path, LEFTOVER)
        if stored is None:
            return Damage(file.path, f"is missing{self.where}")
        if stored.size != file.size:
            return Damage(file.path, f"has {stored.size} bytes{self.where}, where {file.size} were written")
        if deep:
            content = hashlib.sha256()
            for data in self._objects.parts(self._name(asset, file.path), file.size):
                content.update(data)
            if content.hexdigest() != file.sha256:
                return Damage(file.path, f"has other content{self.where} than was written (SHA-256 differs)")
        return None

    def _sent(self, asset: Asset) -> _Sent:
        return _Sent(self.root, asset.kind, asset.key)

    @staticmethod
    def _name(asset: Asset, file: str) -> str:
        return f"{asset.kind}/{asset.key}/{file}"


def _existing(folder: Path) -> tuple[Path, ...]:
    return (folder,) if folder.exists() else ()


def _bytes(objects: Iterable[Stored]) -> int:
    return sum(stored.size for stored in objects)


def _is_manifest(name: str) -> bool:
    return name.count("/") == 2 and name.endswith(f"/{MANIFEST}") and not name.startswith(".")


class RemoteBytes:
    """The tars of an asset read where they lie; `ImageTextDataset` takes it in place of their folder.

    `url` is the asset's, as `millrace show` prints it. Give a DataLoader with workers
    `multiprocessing_context="spawn"` or `"forkserver"`.
    """

    def __init__(self, url: str) -> None:
        self._objects = Objects(url)

    def __str__(self) -> str:
        return self._objects.url

    def sizes(self) -> Mapping[str, int]:
        """Return the size of every file by its name."""
        return {name: stored.size for name, stored in self._objects.list().items()}

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return a part of a file, shorter where the file ends before it."""
        return self._objects.part(name, offset, size)

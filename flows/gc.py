"""Garbage collection: what no profile and no pin reaches goes, unless somebody uses it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import typer
from rich.console import Console

from configs.load import PROFILES, load_config, profile_path
from flows.pipelines import PIPELINES, Pipeline
from flows.runner import plan
from flows.runs import RunRecord, load_runs
from storage.assets import Asset, AssetStore, describe_size
from storage.files import remove_tree


def collect_garbage(console: Console, store: AssetStore, *, dry_run: bool, ask: bool) -> None:
    """Remove unreachable assets and abandoned workspaces; say what, and how much it frees."""
    kept = reachable(store)
    garbage = [a for a in store.assets() if a.folder not in kept]
    workspaces = [f for f in store.workspaces() if f.with_suffix("") not in kept]
    trash = sorted(store.root.glob("[!.]*/.*.trash"))
    if not garbage and not workspaces and not trash:
        console.print(f"nothing to remove: all {len(store.assets())} assets are reached by a profile or a pin")
        return
    for asset in garbage:
        note = f"made {asset.manifest.created_at:%Y-%m-%d %H:%M}" if (asset.folder / "manifest.json").exists() else ""
        console.print(f"{asset.kind}/{asset.key[:12]}  {describe_size(asset.size)}  {note}", highlight=False)
    for folder in workspaces:
        console.print(f"{folder.parent.name}/{folder.name[:12]}  unfinished, no profile leads here", highlight=False)
    if dry_run:
        console.print(
            f"would free up to {describe_size(sum(exclusive_size(f) for f in _folders(garbage, workspaces)))}"
        )
        return
    if ask and not typer.confirm(f"Remove these {len(garbage) + len(workspaces)}?"):
        return
    freed = 0
    for folder in _folders(garbage, workspaces):
        freed += _remove(console, store, folder)
    for folder in trash:
        remove_tree(folder)
    console.print(f"freed {describe_size(freed)}", highlight=False)


def _folders(garbage: list[Asset], workspaces: list[Path]) -> list[Path]:
    return [a.folder for a in garbage] + workspaces


def _remove(console: Console, store: AssetStore, folder: Path) -> int:
    asset = Asset(folder.with_suffix(""))
    with contextlib.ExitStack() as locks:
        for lock in (store.use_lock(asset, shared=False), store.build_lock(asset)):
            if not lock.try_acquire():
                console.print(f"kept {asset.kind}/{asset.key[:12]}: a running process uses it", highlight=False)
                return 0
            locks.enter_context(lock)
        size = exclusive_size(folder)
        if folder == asset.folder:
            store.remove(asset)
        else:
            remove_tree(folder)
    return size


def exclusive_size(folder: Path) -> int:
    """Return the bytes that go with a folder: files that no other asset links to."""
    return sum(s.st_size for p in folder.rglob("*") if p.is_file() and (s := p.stat()).st_nlink == 1)


def reachable(store: AssetStore) -> set[Path]:
    """Return the folders that profiles, pins and what those were made from lead to.

    Where a profile's stage would have to run again (new raw files, other code), the asset of its last run counts as
    reached, since the new one takes over its unchanged units. A profile that was used before but cannot be planned
    now is a `ValueError`: its assets could not be told from garbage.
    """
    queue = [store.asset(*name.split("/")) for name in store.pins()]
    for pipeline, path, runs in _profiles(store):
        try:
            config = load_config(pipeline.config, path)
            outcomes = plan(pipeline, config, store.root)
        except ValueError as error:
            if runs:
                raise ValueError(
                    f"gc cannot plan the profile {path}, which earlier runs used, and so cannot tell its assets from "
                    f"garbage: {error}"
                ) from None
            continue
        values = config.model_dump(mode="json")
        last = next((run for run in runs if run.config == values and run.state == "Completed"), None)
        before = {stage.stage: store.asset(*stage.asset.split("/")) for stage in last.stages} if last else {}
        queue += [asset for o in outcomes if (asset := o.asset or before.get(o.stage))]
    found: set[Path] = set()
    while queue:
        asset = queue.pop()
        if asset.folder not in found:
            found.add(asset.folder)
            if not _unreadable(asset):
                queue += [store.asset(i.kind, i.key) for i in asset.manifest.inputs if i.kind != "raw"]
    return found


def _unreadable(asset: Asset) -> bool:
    try:
        return not asset.manifest
    except ValueError:
        return True


def _profiles(store: AssetStore) -> Iterator[tuple[Pipeline, Path, list[RunRecord]]]:
    """Yield every profile that comes with Millrace or that a run used, and its runs, newest first."""
    records = load_runs(store.root)
    for pipeline in PIPELINES.values():
        runs: dict[Path, list[RunRecord]] = {path: [] for path in (PROFILES / pipeline.name).glob("*.yaml")}
        for record in records:
            path = _profile_of(record)
            if record.pipeline == pipeline.name and path is not None:
                runs.setdefault(path, []).append(record)
        for path in sorted(runs):
            yield pipeline, path, runs[path]


def _profile_of(record: RunRecord) -> Path | None:
    try:
        return profile_path(record.pipeline, record.profile)
    except ValueError:  # deployment parameters, or a YAML file that is gone
        return None

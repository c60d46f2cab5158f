"""Garbage collection: what is old, and no recent run, pin or asset leads to, goes, unless somebody uses it.

It reads what the root tells of itself: run records, pins and manifests. Nothing is planned anew, so neither the working
directory nor the version of a profile matters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from flows.commands.tables import print_table, table
from flows.runs import MOST_DAYS, RunRecord, load_runs, newest_runs
from storage.assets import AssetStore, Holding, describe_size
from storage.files import remove_tree, walk_files
from storage.manifest import ManifestError, now


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that may go, and why."""

    holding: Holding
    reason: str


def collect_garbage(console: Console, store: AssetStore, *, days: int, dry_run: bool, ask: bool) -> None:
    """Remove what nothing leads to and is older than so many days; say what, why, and how much it frees."""
    if days > MOST_DAYS:
        raise ValueError(
            f"--age {days}: records of runs are kept for {MOST_DAYS} days, so nothing older can be told from garbage; "
            f"give at most {MOST_DAYS}, and pin what must stay longer"
        )
    age = timedelta(days=days)
    garbage = find_garbage(store, age)
    trash = sorted(store.root.glob("[!.]*/.*.trash"))
    if not garbage and not trash:
        kept = f"younger than {days} days, " if days else ""
        console.print(f"nothing to remove: all that is here is {kept}pinned, or led to by a run", soft_wrap=True)
        return
    _print(console, store, garbage)
    if dry_run or (ask and not typer.confirm(f"Remove these {len(garbage)}?")):
        return
    if ask:  # a run may have begun while the person thought
        still = {(g.holding.asset.name, g.holding.published) for g in find_garbage(store, age)}
        garbage = [g for g in garbage if (g.holding.asset.name, g.holding.published) in still]
    stored = here = 0
    for piece in garbage:
        size = exclusive_size(piece.holding.folders)
        if _remove(console, store, piece.holding):
            stored += piece.holding.stored
            here += size
    here += exclusive_size(trash)
    for folder in trash:
        remove_tree(folder)
    console.print(f"freed {_sizes(store, stored, here)}", highlight=False, soft_wrap=True)


def find_garbage(store: AssetStore, age: timedelta) -> list[Garbage]:
    """Return what neither its age, a pin nor a run keeps, and no asset that stays was made from."""
    records, holdings, pins = load_runs(store), store.holdings(), store.pins()
    if holdings and not records and not pins:
        raise ValueError(
            f"{store.name} has no record of any run, so gc cannot tell what is still wanted; run your pipelines once "
            "(what is there is found again), or pin what must stay"
        )
    wanted = {
        name for run in [*newest_runs(records), *(r for r in records if r.is_younger(age))] for name in run.assets()
    }
    young = {holding.asset.name for holding in holdings if holding.changed > now() - age}
    kept = _with_inputs(wanted | young | pins.keys(), {h.asset.name: h for h in holdings if h.published})
    last_uses = {name: record for record in reversed(records) for name in record.assets()}
    return [
        Garbage(holding, _reason(holding, last_uses.get(holding.asset.name)))
        for holding in holdings
        if holding.asset.name not in kept
    ]


def _with_inputs(names: Iterable[str], published: Mapping[str, Holding]) -> set[str]:
    """Return assets and everything that they were made from."""
    queue, found = list(names), set[str]()
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            with contextlib.suppress(ManifestError, KeyError):
                inputs = published[name].asset.manifest.inputs
                queue += [f"{record.kind}/{record.key}" for record in inputs if record.kind != "raw"]
    return found


def _reason(holding: Holding, last_use: RunRecord | None) -> str:
    if last_use:
        why = f"last used {last_use.started:%Y-%m-%d} by {last_use.cause} (run {last_use.id})"
    else:
        why = f"no run leads here, {'made' if holding.published else 'last written'} {holding.changed:%Y-%m-%d}"
    return why if holding.published else f"unfinished; {why}"


def _print(console: Console, store: AssetStore, garbage: Sequence[Garbage]) -> None:
    """Print what would go, and what that would free."""
    rows = table("asset", "size", "why")
    for piece in garbage:
        holding = piece.holding
        size = holding.stored or sum(size for folder in holding.folders for size, _, _ in _files(folder))
        rows.add_row(f"{holding.asset.kind}/{holding.asset.key[:12]}", describe_size(size), escape(piece.reason))
    print_table(console, rows)
    stored = sum(piece.holding.stored for piece in garbage)
    here = exclusive_size([folder for piece in garbage for folder in piece.holding.folders])
    console.print(f"would free {_sizes(store, stored, here)}", highlight=False, soft_wrap=True)


def _sizes(store: AssetStore, stored: int, here: int) -> str:
    return (
        f"{describe_size(stored)}{store.where} and {describe_size(here)} here" if store.where else describe_size(here)
    )


def _remove(console: Console, store: AssetStore, holding: Holding) -> bool:
    """Remove something unless a process here uses it; return whether it is gone."""
    asset = holding.asset
    with contextlib.ExitStack() as locks:
        for lock in (store.use_lock(asset, shared=False), store.build_lock(asset)):
            if not lock.try_acquire():
                console.print(f"kept {asset.kind}/{asset.key[:12]}: a running process uses it", highlight=False)
                return False
            locks.enter_context(lock)
        if holding.published:
            store.remove(asset)
        else:
            store.abandon(asset)
    return True


def exclusive_size(folders: Iterable[Path]) -> int:
    """Return the bytes that go with folders: those of files that nothing outside of them links to."""
    links: dict[int, list[int]] = {}
    for folder in folders:
        for size, inode, count in _files(folder):
            links.setdefault(inode, [size, count])[1] -= 1
    return sum(size for size, outside in links.values() if outside == 0)


def _files(folder: Path) -> Iterable[tuple[int, int, int]]:
    """Yield the size, inode and number of links of every file; those that vanish meanwhile are left out."""
    with contextlib.suppress(FileNotFoundError):
        for name in walk_files(folder):
            stat = (folder / name).stat()
            yield stat.st_size, stat.st_ino, stat.st_nlink

"""What `status`, `show` and `verify` print."""

from __future__ import annotations

import time
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from flows.commands.tables import print_table, table
from flows.runs import load_runs
from storage.assets import Asset, AssetStore, Damage, Workspace, describe_size, describe_value, made_at
from storage.manifest import InputRecord, ManifestError


def print_status(console: Console, store: AssetStore, runs: int = 10) -> None:
    """Print runs, assets by kind, workspaces and pins of a store."""
    console.print(f"[bold]{escape(store.name)}[/]", highlight=False)
    history = table("run", "pipeline", "state", "started", "seconds", "stages")
    for record in load_runs(store)[:runs]:
        state = "[red]killed (millrace reap)[/]" if record.is_orphan() else record.state
        seconds = f"{(record.ended - record.started).total_seconds():.0f}" if record.ended else ""
        stages = f"{len(record.stages)}, {sum(s.status == 'HIT' for s in record.stages)} cached"
        history.add_row(record.id, record.pipeline, state, f"{record.started:%Y-%m-%d %H:%M}", seconds, stages)
    print_table(console, history)

    kinds = table("kind", "assets", "size", "newest")
    for kind, group in groupby(sorted(store.assets(), key=lambda a: a.kind), key=lambda a: a.kind):
        assets = sorted(group, key=made_at)
        broken = [asset for asset in assets if not _readable(asset)]
        size = describe_size(sum(a.size for a in assets if a not in broken))
        words = f"  [red]{len(broken)} damaged (millrace verify)[/]" if broken else ""
        kinds.add_row(
            kind, str(len(assets)), size, f"{assets[-1].key[:12]}  {made_at(assets[-1]):%Y-%m-%d %H:%M}{words}"
        )
    print_table(console, kinds)

    for folder in store.workspaces():
        done, total = Workspace(folder).progress()
        asset = Asset(folder.with_suffix(""))
        lock = store.build_lock(asset)
        if lock.try_acquire():
            lock.release()
            owner = "[yellow]interrupted; the next run continues it[/]"
        else:
            owner = f"[cyan]process {lock.holder()} works on it[/]"
        console.print(f"{asset.kind}/{asset.key[:12]}  {done}/{total or '?'} done  {owner}", highlight=False)
    for name, note in store.pins().items():
        console.print(f"pinned {name}  {escape(note)}", highlight=False, soft_wrap=True)


def _readable(asset: Asset) -> bool:
    try:
        return bool(asset.manifest)
    except ManifestError:
        return False


def print_asset(console: Console, store: AssetStore, name: str) -> None:
    """Print an asset's facts and its lineage up to raw files."""
    asset = store.find(name)
    manifest = asset.manifest
    facts = table("", "")
    facts.show_header = False
    rows = {
        "folder": asset.place,
        "stage": f"{manifest.stage} (version {manifest.version}, code {manifest.code[:12]})",
        "made": f"{manifest.created_at:%Y-%m-%d %H:%M} UTC in {manifest.seconds:.1f} s, because: {manifest.reason}",
        "content": f"{len(manifest.files)} files, {describe_size(asset.size)}, {len(manifest.units)} units, "
        f"fingerprint {manifest.fingerprint[:12]}",
        "config": manifest.config,
        **manifest.counts,
        **manifest.metrics,
        "bytes depend on": manifest.made_on or "nothing else",
        "software": ", ".join(f"{k} {v}" for k, v in manifest.software.items()),
    }
    for key, value in rows.items():
        facts.add_row(f"[dim]{key}[/]", escape(describe_value(value)))
    console.print(f"[bold]{asset.kind}/{asset.key}[/]", highlight=False)
    print_table(console, facts)
    tree = Tree(f"[bold]{asset.kind}[/]/{asset.key[:12]}", guide_style="dim")
    _grow(tree, store, asset)
    console.print(tree, highlight=False)


def _grow(tree: Tree, store: AssetStore, asset: Asset, most_files: int = 12) -> None:
    for record in asset.manifest.inputs:
        if record.kind == "raw":
            branch = tree.add(f"{record.name}: {len(record.files)} raw files [dim]{record.key}[/]")
            for file in record.files[:most_files]:
                branch.add(f"{escape(file.path)}  [dim]{describe_size(file.size)}  sha256 {file.sha256[:12]}[/]")
            if len(record.files) > most_files:
                branch.add(f"[dim]and {len(record.files) - most_files} more[/]")
            continue
        source = store.asset(record.kind, record.key)
        there = store.published(source)
        state = _state(source, record) if there else " [dim](removed since)[/]"
        branch = tree.add(f"{record.name}: [bold]{record.kind}[/]/{record.key[:12]}{state}")
        if there and _readable(source):
            _grow(branch, store, source, most_files)


def _state(asset: Asset, record: InputRecord) -> str:
    if not _readable(asset):
        return " [red](damaged)[/]"
    return "" if asset.fingerprint == record.fingerprint else " [red](content differs by now)[/]"


def _mark(store: AssetStore, asset: Asset, damages: list[Damage]) -> str:
    """See to it that the next run repairs an asset; return what will come of that."""
    try:
        store.mark(asset, damages)
    except (OSError, ValueError) as error:
        return escape(f"a run with --deep repairs it; it cannot be marked for the next run: {error}")
    return "the next run repairs it"


def print_verification(console: Console, store: AssetStore, name: str | None, *, deep: bool) -> bool:
    """Verify one or all assets; return whether all are whole."""
    assets = [store.find(name)] if name else store.assets()
    whole = True
    for asset in assets:
        started = time.perf_counter()
        by_content = deep or store.marked(asset)
        damages = store.verify(asset, deep=by_content)
        seconds = time.perf_counter() - started
        if not damages:
            if by_content:
                store.unmark(asset)
            console.print(f"[green]whole  [/] {asset.kind}/{asset.key[:12]}  {seconds:.2f} s", highlight=False)
            continue
        whole = False
        console.print(f"[red]damaged[/] {asset.kind}/{asset.key[:12]}  {_mark(store, asset, damages)}", highlight=False)
        for damage in damages:
            console.print(f"        {escape(str(damage))}", highlight=False, soft_wrap=True)
    if not assets:
        console.print(f"no assets below {store.name}", highlight=False)
    return whole

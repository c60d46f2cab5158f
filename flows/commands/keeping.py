"""The verbs that look after a root: `status`, `show`, `verify`, `pin`, `gc`, `reap`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import Deep, Root, console, root_of, store_of

AssetName = Annotated[
    str, typer.Argument(help="kind (its newest), kind/key, the start of a key, or a folder.", show_default=False)
]


def status(root: Root = None) -> None:
    """List runs, assets, unfinished workspaces and pins."""
    from flows.commands.views import print_status

    print_status(console, store_of(root))


def show(asset: AssetName, root: Root = None) -> None:
    """Show an asset's manifest and its lineage, up to the raw files; of a model also its dimensions and sizes."""
    from flows.commands.released import is_model, print_model
    from flows.commands.views import print_asset

    store = store_of(root)
    print_asset(console, store, asset)
    if is_model(found := store.find(asset)):
        print_model(console, found)


def verify(
    asset: Annotated[str | None, typer.Argument(help="An asset; all of them when absent.")] = None,
    root: Root = None,
    deep: Deep = False,
) -> None:
    """Compare assets on disk with their manifests; every damage is named. Exit code 1 when there is any."""
    from flows.commands.views import print_verification

    if not print_verification(console, store_of(root), asset, deep=deep):
        raise typer.Exit(1)


def pin(
    asset: AssetName,
    note: Annotated[str, typer.Option(help="Why it must stay.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the pin off again.")] = False,
    root: Root = None,
) -> None:
    """Keep an asset, and what it was made from, through every gc."""
    store = store_of(root)
    target = store.find(asset)
    if remove:
        store.unpin(target)
    else:
        store.pin(target, note)
    console.print(f"{'unpinned' if remove else 'pinned'} {target.kind}/{target.key}", highlight=False)


def gc(
    root: Root = None,
    age: Annotated[int, typer.Option(min=0, help="Days for which everything stays; at most 90.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove assets and unfinished work that are old and that nothing leads to; never what is in use.

    Of every pipeline and profile, what the newest run and the newest finished run lead to stays, however old; so does
    what any run of the last days (--age) led to, what is pinned, and all that these were made from.
    """
    from flows.commands.gc import collect_garbage

    collect_garbage(console, store_of(root), days=age, dry_run=dry_run, ask=not yes)


def reap(root: Root = None) -> None:
    """Mark runs whose process is dead as Crashed, in the run records and on the dashboard."""
    from flows.commands.reap import reap_runs

    reap_runs(console, root_of(root))

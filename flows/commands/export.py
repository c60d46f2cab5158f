"""`millrace export`: a vision-language model as a folder for a small board."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from flows.commands.see import opened, vlm_asset
from flows.runs import RunRecord, recorded
from storage.assets import AssetStore, describe_size
from storage.files import walk_files
from tasks.progress import Terminal
from tasks.session import Session


def export_model(console: Console, store: AssetStore, *, model: str | None, to: Path) -> None:
    """Write everything that runs a model without torch.

    Raises:
        ValueError: the folder holds something, or the engine cannot run such a model.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"{to} is not empty; name a folder that is new")
    from tasks.vision_language.edge import write_edge

    session = Session(store, Terminal(console))
    asset = vlm_asset(store, model)
    with recorded(session, RunRecord.begin("export", "", {"model": asset.name}, session.engine)):
        release = opened(console, session, asset)
    to.mkdir(parents=True, exist_ok=True)
    write_edge(to, release, asset.name)
    size = sum((to / name).stat().st_size for name in walk_files(to))
    told = f"{to}: {describe_size(size)}; copy it to the board, and README.md there says how to go on"
    console.print(escape(told), highlight=False, soft_wrap=True)

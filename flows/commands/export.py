"""`millrace export`: a vision-language model as a folder for a small board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from flows.commands.see import opened, vlm_asset
from flows.runs import RunRecord, recorded
from storage.assets import Asset, AssetStore, describe_size
from storage.files import walk_files, write_atomic
from storage.lineage import made_from
from tasks.progress import Terminal
from tasks.session import Session

if TYPE_CHECKING:
    from tasks.vision_language.released import VlmRelease

CHECK = "check.json"


def export_model(console: Console, store: AssetStore, *, model: str | None, to: Path, check: bool) -> None:
    """Write everything that runs a model without torch; `check` compares it with the model.

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
        if check:
            console.print(escape(_checked(console, session, asset, release, to)), highlight=False, soft_wrap=True)
    size = sum((to / name).stat().st_size for name in walk_files(to))
    told = f"{to}: {describe_size(size)}; copy it to the board, and README.md there says how to go on"
    console.print(escape(told), highlight=False, soft_wrap=True)


def _checked(console: Console, session: Session, asset: Asset, release: VlmRelease, folder: Path) -> str:
    """Compare a folder with the model that it is of, keep what is found there, and return it as a sentence."""
    from tasks.quantise.edge_process import edge_python
    from tasks.vision_language.edge_check import compare_parts, compare_texts, told
    from tasks.vision_language.samples import first_of_validation

    try:
        shards, index = _data(console, session, asset)
        batch = first_of_validation(release, shards.folder, index.folder)
        parts = compare_parts(folder, release, batch)
    except (ValueError, OSError) as error:
        return f"not compared with the model in torch: {error}"
    texts: dict[str, float] = {}
    try:
        edge_python()
        texts, without = compare_texts(folder, release, batch), ""
    except (ValueError, RuntimeError, OSError) as error:
        without = f": {error}"
    write_atomic(folder / CHECK, json.dumps({**parts, **texts}, indent=1) + "\n")
    return told(parts, texts) + without


def _data(console: Console, session: Session, asset: Asset) -> tuple[Asset, Asset]:
    """Return shards and index that a model was made from, with the shards at hand that hold what is compared."""
    from storage.shard_index import SplitIndex
    from tasks.vision_language.samples import COMPARED

    shards, index = (made_from(session.store, asset, f"image_text_{kind}") for kind in ("shards", "index"))
    if shards is None or index is None:
        raise ValueError("no images are known that the model was made from")
    for data in (shards, index):
        session.hold(data)
    index.fetch()
    split = SplitIndex(index.folder, "validation")
    needed = {split.shards[number] for number in split.entries[:COMPARED]["shard"]}
    shards.fetch(lambda name: name in needed or not name.endswith(".tar"), console.print)
    return shards, index

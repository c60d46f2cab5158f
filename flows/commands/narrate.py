"""`millrace narrate`: the weather of a date in words."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from configs.weather_lm import JoinConfig, NarrationEvaluation
from flows.runs import RunRecord, recorded
from storage.assets import Asset, AssetStore
from tasks.progress import Terminal
from tasks.session import Session

if TYPE_CHECKING:
    from tasks.narration.narrate import Narrative, Request

KIND = "weather_narrator"


def narrate_date(
    console: Console,
    store: AssetStore,
    *,
    model: str | None,
    request: Request,
    writing: NarrationEvaluation,
    output: Path,
) -> None:
    """Tell the weather of a date with a trained narrator; write maps, texts and a JSON file."""
    from tasks.narration.dataset import PairFolders
    from tasks.narration.narrate import narrate
    from tasks.narration.released import NarratorRelease

    asset = store.find(model) if model else best_narrator(store)
    if asset.manifest.kind != KIND:
        raise ValueError(f"{asset.kind}/{asset.key[:12]} is no narrator; name an asset of kind {KIND} with --model")
    parts = {name: _part(store, asset, name) for name in ("store", "training_set", "captions", "mae", "language")}
    folders = {name: part.folder for name, part in parts.items() if part}
    asset.fetch()
    release = NarratorRelease.from_release(asset.folder)
    pairs = PairFolders(folders["store"], folders["training_set"], folders["captions"])
    join = JoinConfig.model_validate(asset.manifest.config["join"])
    console.print(f"narrator {asset.kind}/{asset.key[:12]}", highlight=False)
    session = Session(store, Terminal(console))
    asked = {"model": asset.name, "date": str(request.day), "region": request.region}
    with recorded(session, RunRecord.begin("narrate", "", asked, session.engine)):
        for used in filter(None, [asset, *parts.values()]):
            session.hold(used)
        for narrative in narrate(release, pairs, join, request, writing, output):
            console.print(escape(describe(narrative)), highlight=False, soft_wrap=True)
    console.print(f"maps and texts in {output}", highlight=False, soft_wrap=True)


def describe(narrative: Narrative) -> str:
    """Return a narrative with what is known of its truth."""
    seen = " (this date was trained on)" if narrative.split == "train" else ""
    right = f"{narrative.values_right} of {narrative.values_checked} numbers agree with the fields"
    lines = [f"{narrative.date} {narrative.region or 'everywhere'}{seen}: {narrative.text}"]
    lines.append(f"    {right if narrative.values_checked else 'no number that the fields could confirm'}")
    lines += [f"    caption: {text}" for text in narrative.captions[:1]]
    return "\n".join(lines)


def best_narrator(store: AssetStore) -> Asset:
    """Return, of the narrators trained on the newest one's data, the likeliest on validation captions."""
    narrators = store.assets(KIND)
    if not narrators:
        raise ValueError(f"no {KIND} is below {store.root}; train one with millrace run weather, or name a --model")

    def data(asset: Asset) -> dict[str, str]:
        names = ("store", "training_set", "captions")
        return {record.name: record.key for record in asset.manifest.inputs if record.name in names}

    alike = [asset for asset in narrators if data(asset) == data(narrators[0])]
    return min(alike, key=lambda asset: asset.manifest.metrics.get("nll", float("inf")))


def _part(store: AssetStore, narrator: Asset, name: str) -> Asset | None:
    """Return an input of a narrator, brought here; None where it has no such input."""
    for record in narrator.manifest.inputs:
        if record.name == name:
            part = store.asset(record.kind, record.key)
            if not store.published(part):
                raise ValueError(
                    f"{record.kind}/{record.key[:12]}, which the narrator was made from, is gone; run millrace run "
                    "weather again"
                )
            part.fetch()
            return part
    return None


def parse_date(text: str) -> date:
    """Return the date of `2024-03-15`."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--date {text!r} is no date; write it as 2024-03-15") from None

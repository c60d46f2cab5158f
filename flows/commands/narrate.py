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
from storage.lineage import best, made_from
from tasks.progress import Terminal
from tasks.session import Session

if TYPE_CHECKING:
    from tasks.narration.narrate import Narrative, Request

KIND, PACKED = "weather_narrator", "weather_narrator_packed"
DATA, MODELS = ("era5_windows", "era5_training_set", "weather_captions"), ("weather_mae", "weather_language")
"""What a narrator is asked about, and what it is made of; a packed one holds the latter itself."""


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
    if asset.manifest.kind not in (KIND, PACKED):
        raise ValueError(f"{asset.kind}/{asset.key[:12]} is no narrator; name an asset of kind {KIND} with --model")
    kinds = DATA if asset.manifest.kind == PACKED else DATA + MODELS
    parts = [part for kind in kinds if (part := made_from(store, asset, kind)) is not None]
    folders = {part.kind: part.folder for part in parts}
    pairs = PairFolders(folders["era5_windows"], folders["era5_training_set"], folders["weather_captions"])
    join = JoinConfig.model_validate(asset.manifest.config["join"])
    console.print(f"narrator {asset.kind}/{asset.key[:12]}", highlight=False)
    session = Session(store, Terminal(console))
    asked = {"model": asset.name, "date": str(request.day), "region": request.region}
    with recorded(session, RunRecord.begin("narrate", "", asked, session.engine)):
        for used in [asset, *parts]:
            session.hold(used)
            used.fetch()
        release = NarratorRelease.from_release(asset.folder)
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
    """Return, of the narrators trained on the newest one's data, the likeliest on validation captions.

    Only those on one language model compare, as nats a token depend on what the tokens are; and only those that look at
    the weather are taken, where there are any.
    """

    def language(narrator: Asset) -> object:
        return narrator.manifest.config["language_recipe"]

    def looks(narrator: Asset) -> bool:
        return bool(narrator.manifest.config["recipe"]["vision"])

    alike = (*DATA, "weather_language")
    return best(store, KIND, "nll", least=True, alike=alike, agreeing=language, preferred=looks)


def parse_date(text: str) -> date:
    """Return the date of `2024-03-15`."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--date {text!r} is no date; write it as 2024-03-15") from None

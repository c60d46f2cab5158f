"""`millrace evaluate`: a released model judged again, on other data."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from flows.evaluation import Given
from flows.pipelines import find_pipeline, pipeline_names
from flows.runs import RunRecord, recorded
from storage.assets import AssetStore
from storage.lineage import short_name
from tasks.progress import Terminal
from tasks.session import Session
from tasks.units import Workers


def evaluate_model(console: Console, store: AssetStore, *, model: str, on: Sequence[str]) -> None:
    """Judge a model with the report of its pipeline; a report that exists already is a hit.

    Raises:
        ValueError: nothing judges assets of this kind, or a name is neither an asset nor a folder.
    """
    asset = store.find(model)
    judges = {kind: judge for name in pipeline_names() for kind, judge in find_pipeline(name).judges.items()}
    if asset.manifest.kind not in judges:
        raise ValueError(f"{short_name(asset)} is no model that can be judged; name one of {', '.join(sorted(judges))}")
    session = Session(store, Terminal(console), workers=Workers.parse("auto"))
    with recorded(session, RunRecord.begin("evaluate", "", {"model": asset.name, "on": list(on)}, session.engine)):
        given = Given(session, asset, on)
        asset.fetch()
        call = judges[asset.manifest.kind](given)
        given.refuse_unused()
        report = call()
    for name, value in report.manifest.metrics.items():
        console.print(escape(f"{name}: {value:.4g}"), highlight=False, soft_wrap=True)
    told = f"scores, tables and pictures in {report.folder}"
    console.print(escape(told), highlight=False, soft_wrap=True)

"""`millrace report`: one self-contained HTML page about a pipeline's latest run."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from flows.pipelines import Pipeline
from flows.runs import RunRecord, StageRecord, load_runs
from storage.assets import Asset, AssetStore, describe_size, describe_value
from storage.files import write_atomic

TEMPLATE = Path(__file__).parent / "report.html"
CURVES = "curves"  # how the files of training curves begin: the page shows them to those who ask


def write_report(store: AssetStore, pipeline: Pipeline, output: Path | None = None) -> Path:
    """Write the page of the newest run that finished a stage; return its path."""
    runs = [run for run in load_runs(store) if run.pipeline == pipeline.name]
    latest = next((run for run in runs if run.state == "Completed"), None)
    if latest is None:
        raise ValueError(
            f"no finished run of {pipeline.name} below {store.name}: millrace run {pipeline.name} comes first"
        )
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text())
    html = template.render(
        title=pipeline.title,
        pipeline=pipeline.name,
        run=latest,
        stages=sorted((_stage(store, record) for record in reversed(latest.stages)), key=_rank),
        river=latest.stages,
        history=[_row(run) for run in runs[:20]],
    )
    path = output or pipeline.page(store.root)
    write_atomic(path, html)
    return path


def _rank(stage: dict[str, Any]) -> int:
    """Let the page open with the pictures of the result: those of the last report, then of those before it."""
    is_report = not stage["gone"] and stage["asset"].kind.endswith("_report")
    return 0 if is_report else 1 if stage.get("pictures") else 2


def _stage(store: AssetStore, record: StageRecord) -> dict[str, Any]:
    kind, _, key = record.asset.partition("/")
    asset = store.asset(kind, key)
    if not store.published(asset):
        return {"record": record, "gone": True}
    asset.fetch(lambda name: name.endswith((".png", ".csv")))
    manifest = asset.manifest
    paths = sorted(_files(asset, ".png"), key=lambda path: _turn(manifest.pictures, path.name))
    return {
        "record": record,
        "gone": False,
        "asset": asset,
        "manifest": manifest,
        "size": describe_size(asset.size),
        "inputs": [
            f"{i.kind}/{i.key[:12]}" if i.kind != "raw" else f"{len(i.files)} raw files" for i in manifest.inputs
        ],
        "facts": {name: describe_value(value) for name, value in {**manifest.counts, **manifest.metrics}.items()},
        "pictures": [_picture(path) for path in paths if not path.name.startswith(CURVES)],
        "curves": [_picture(path) for path in paths if path.name.startswith(CURVES)],
        "tables": _tables(asset) if asset.kind.endswith("_report") else [],
    }


def _turn(named: Sequence[str], name: str) -> tuple[int, str]:
    """Let pictures come in the order that their stage gives them, and those that it does not name after them."""
    return named.index(name) if name in named else len(named), name


def _picture(path: Path) -> tuple[str, str]:
    """Return a picture's caption and data URI."""
    return path.stem.replace("_", " "), f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _files(asset: Asset, suffix: str) -> list[Path]:
    """Return the files of a kind that stand in an asset's manifest, folders left out, in the order of their names."""
    names = [file.path for file in asset.manifest.files if file.path.endswith(suffix) and "/" not in file.path]
    return [path for name in sorted(names) if (path := asset.folder / name).is_file()]


def _tables(asset: Asset) -> list[tuple[str, list[list[str]]]]:
    """Return an asset's CSV tables, the header first."""
    import csv

    tables = []
    for path in _files(asset, ".csv"):
        with path.open(newline="") as file:
            tables.append((path.stem.replace("_", " "), list(csv.reader(file))[:200]))
    return tables


def _row(run: RunRecord) -> dict[str, Any]:
    return {
        "run": run,
        "seconds": f"{(run.ended - run.started).total_seconds():.0f}" if run.ended else "",
        "cached": sum(stage.status == "HIT" for stage in run.stages),
    }

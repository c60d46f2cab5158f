"""Roots as they are after some time."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta

from flows.runs import RUNS, TIME_IN_ID, load_runs
from storage.assets import AssetStore
from storage.manifest import MANIFEST, sealed
from storage.remote import Objects, RemoteStore


def let_days_pass(store: AssetStore, days: float) -> None:
    """Make everything in a root so much older; the objects of unfinished assets excepted."""
    past = timedelta(days=days)
    for record in reversed(load_runs(store)):
        store.remove_notes(RUNS, [f"{record.id}.json"])
        record.started -= past
        record.ended = record.ended and record.ended - past
        record.id = f"{record.started:{TIME_IN_ID}}-{record.id.rpartition('-')[2]}"
        record.save(store)
    for asset in store.assets():
        text = sealed(asset.manifest.model_copy(update={"created_at": asset.manifest.created_at - past}))
        if isinstance(store, RemoteStore):
            Objects(store.name).write(f"{asset.name}/{MANIFEST}", text.encode())
            shutil.rmtree(asset.folder)
        else:
            (asset.folder / MANIFEST).write_text(text)
    for folder in store.workspaces():
        for path in [*folder.rglob("*"), folder]:
            at = path.stat().st_mtime - past.total_seconds()
            os.utime(path, (at, at))

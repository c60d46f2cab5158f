"""Released models judged again, on other data than they were made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from storage.assets import Asset, AssetStore
from storage.lineage import made_from, short_name
from tasks.session import Session


class Given:
    """What a model is judged on: assets by their kind and what they were made from, or a folder of raw files."""

    def __init__(self, session: Session, model: Asset, names: Sequence[str]) -> None:
        """Find the assets; `ValueError` where a name is neither an asset nor a folder."""
        self._session = session
        self.model = model
        self.raw: str | None = None
        self._assets: list[Asset] = []
        for name in names:
            if Path(name).is_dir() and not (Path(name) / "manifest.json").exists():
                self.raw = name
            else:
                self._assets.append(session.store.find(name))
        for asset in [model, *self._assets]:
            session.hold(asset)

    @property
    def _store(self) -> AssetStore:
        return self._session.store

    def asset(self, kind: str) -> Asset:
        """Return the asset of a kind that was given, or that what was given was made from, or else the model."""
        for given in self._assets:
            if given.kind == kind:
                return given
        for given in self._assets:
            if (found := made_from(self._store, given, kind)) is not None:
                return self._held(found)
        return self.of_model(kind)

    def of_model(self, kind: str) -> Asset:
        """Return the asset of a kind that the model was made from; `ValueError` where there is none."""
        found = made_from(self._store, self.model, kind)
        if found is None:
            raise ValueError(f"{short_name(self.model)} was made from no {kind}; name one with --on")
        return self._held(found)

    def report_settings(self, kind: str, name: str) -> object:
        """Return a setting of the newest report of a kind that the model is in; None where there is none."""
        for report in self._store.assets(kind):
            if any(record.key == self.model.key for record in report.manifest.inputs):
                return report.manifest.config.get(name)
        return None

    def _held(self, asset: Asset) -> Asset:
        self._session.hold(asset)
        return asset

"""Released models judged again, on other data than they were made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.assets import Asset
from storage.lineage import made_from, short_name
from tasks.session import Session


class Given:
    """What a model is judged on: assets by their kind and what they were made from, or a folder of raw files."""

    def __init__(self, session: Session, model: Asset, names: Sequence[str]) -> None:
        """Find the assets; `ValueError` where a name is neither an asset nor a folder."""
        self._session = session
        self.store, self.model = session.store, model
        self._raw = {name for name in names if Path(name).is_dir() and not (Path(name) / "manifest.json").exists()}
        self._assets = {name: session.store.find(name) for name in names if name not in self._raw}
        self._used: set[str] = set()
        for asset in [model, *self._assets.values()]:
            session.hold(asset)

    @property
    def raw(self) -> str | None:
        """A folder of raw files, if one was given."""
        if len(self._raw) > 1:
            raise ValueError(f"--on names several folders: {', '.join(sorted(self._raw))}; judge on one after another")
        self._used |= self._raw
        return next(iter(self._raw), None)

    def asset(self, kind: str) -> Asset:
        """Return the asset of a kind that was given, or that what was given was made from, or else the model."""
        given = {name: asset for name, asset in self._assets.items() if asset.kind == kind}
        for name, asset in (given or self._assets).items():
            found = asset if given else made_from(self.store, asset, kind)
            if found is not None:
                self._used.add(name)
                return self._held(found)
        return self.of_model(kind)

    def of_model(self, kind: str) -> Asset:
        """Return the asset of a kind that the model was made from; `ValueError` where none is known."""
        found = made_from(self.store, self.model, kind)
        if found is None:
            raise ValueError(f"no {kind} is known that {short_name(self.model)} was made from; name one with --on")
        return self._held(found)

    def in_report(self, kind: str, setting: str) -> tuple[str, Any] | None:
        """Return the model's name in the newest report of a kind, and a setting of that; None where it is in none."""
        for report in self.store.assets(kind):
            for record in report.manifest.inputs:
                if record.key == self.model.key:
                    return record.name, report.manifest.config[setting]
        return None

    def refuse_unused(self) -> None:
        """Raise `ValueError` where a name was given that has no part in the judgement."""
        if unused := sorted((self._assets.keys() | self._raw) - self._used):
            kinds = ", ".join(sorted({record.kind for record in self.model.manifest.inputs}))
            raise ValueError(
                f"--on {unused[0]}: a {self.model.kind} is not judged on that; name other data of the kinds that it "
                f"was made from: {kinds}"
            )

    def _held(self, asset: Asset) -> Asset:
        self._session.hold(asset)
        return asset

"""What people ask a store about models: which is the best, and which of its inputs is what."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from storage.assets import Asset, AssetStore

IN_KEY = False


def short_name(asset: Asset) -> str:
    """Return kind and beginning of the key."""
    return f"{asset.kind}/{asset.key[:12]}"


def made_from(store: AssetStore, asset: Asset, kind: str) -> Asset | None:
    """Return the nearest asset of a kind that an asset was made from, at any depth; None where none is known.

    Whoever reads its files fetches it.

    Raises:
        ValueError: there was one, and it is gone.
    """
    nearest = [asset]
    for asset_on_the_way in nearest:
        records = [r for r in asset_on_the_way.manifest.inputs if r.kind != "raw"]
        for record in records:
            found = store.asset(record.kind, record.key)
            if record.kind == kind:
                if not store.published(found):
                    raise ValueError(
                        f"{short_name(found)}, which {short_name(asset)} was made from, is gone; make it again, or "
                        "name another one"
                    )
                return found
        nearest += [found for r in records if store.published(found := store.asset(r.kind, r.key))]
    return None


def all_made_from(store: AssetStore, asset: Asset, kind: str) -> list[Asset]:
    """Return all assets of a kind that an asset was made from, at any depth, as far as they are still there."""
    found, met, ahead = [], {asset.name}, [asset]
    for here in ahead:
        for record in here.manifest.inputs:
            maker = store.asset(record.kind, record.key)
            if record.kind == "raw" or maker.name in met or not store.published(maker):
                continue
            met.add(maker.name)
            ahead.append(maker)
            if record.kind == kind:
                found.append(maker)
    return found


def best(
    store: AssetStore,
    kind: str,
    metric: str,
    *,
    least: bool = False,
    alike: Sequence[str],
    agreeing: Callable[[Asset], object] = lambda model: None,
    preferred: Callable[[Asset], bool] = lambda model: True,
) -> Asset:
    """Return, of the models that were made from the same as the newest one, the one with the best metric.

    Args:
        store: where to look.
        kind: the models.
        metric: of the manifest.
        least: whether less is better.
        alike: kinds of the inputs in which the models must agree.
        agreeing: what else they must agree in.
        preferred: which models alone are looked at, if there are any.

    Raises:
        ValueError: there is no model of that kind.
    """
    models = store.assets(kind)
    if not models:
        raise ValueError(f"no {kind} is below {store.name}; train one with millrace run, or name a --model")
    models = [model for model in models if preferred(model)] or models

    def common(model: Asset) -> tuple[set[tuple[str, str]], object]:
        inputs = model.manifest.inputs
        return {(record.kind, record.key) for record in inputs if record.kind in alike}, agreeing(model)

    sign, worst = (-1, float("inf")) if least else (1, float("-inf"))
    rivals = [model for model in models if common(model) == common(models[0])]
    return max(rivals, key=lambda model: sign * model.manifest.metrics.get(metric, worst))

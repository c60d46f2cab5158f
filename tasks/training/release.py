"""Released models of every family: `model.safetensors` beside a `config.json` that says how to use it again."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from inspect import isabstract
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from configs.quantise import QuantiseRecipe
from models.build import imported
from storage.checkpoints import load_weights, save_weights
from storage.files import write_atomic
from tasks.text.tokens import FOLDER

WEIGHTS, CONFIG = "model.safetensors", "config.json"
PACKED = "packed"
"""Entry of `config.json` that says how weights are packed, and that they are."""
COMPUTED_BY = "computed_by"
"""Entry of `config.json` that names what computes in place of the network, `module:class`, and needs `ONNX`."""
ONNX = "model.onnx"
"""A network, or the most of it, for ONNX Runtime."""
PACKED_APART = 1e-3
"""Largest difference of logits between a packed model and the one that computes quantised from exact weights."""
FAMILIES = ("tasks",)
"""Packages in which `config.json` may name a family's `Release`, and what computes in place of its network."""


AGAIN = "get or make the model again"
LONGEST_REASON = 500
"""Characters of what is wrong with a description."""


class ReleaseError(ValueError):
    """A folder that holds no released model that can be used; its message is a sentence."""


class Release(ABC):
    """A released model in evaluation mode on the CPU, with its configuration and all that it needs before and after.

    Each family has one. What its objective's `release_config` returns, which a function beside the class writes, is
    what `restore` reads.
    """

    network: nn.Module

    @classmethod
    @abstractmethod
    def restore(cls, model: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Self:
        """Return the release with weights that are still to be read.

        Args:
            model: what `Objective.release_config` returned.
            weights: where in the training the weights are from, and the metrics of that moment.
            folder: where the release lies; assets that it refers to as kind/key lie beside it.
        """

    @classmethod
    def from_release(cls, folder: Path) -> Self:
        """Read a released model.

        Raises:
            ValueError: the folder holds none, one of another family, or weights that do not fit it.
        """
        config = _config(folder)
        family = _family(folder, config.get("release"))
        if not issubclass(family, cls):
            raise ReleaseError(f"{folder} is a {family.__name__}, and a {cls.__name__} is needed; name another model")
        if config.get(PACKED):
            release = _packed(family, config, folder)
        else:
            with _described(folder):
                release = family.restore(config["model"], config["weights"], folder)
                left_out = frozenset(config["left_out"])
            load_weights(folder / WEIGHTS, release.network, left_out)
        if config.get(COMPUTED_BY):
            release = replace(release, network=_computed(folder, config[COMPUTED_BY], release.network))
        release.network.eval()
        return release


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ReleaseError(f"{folder} is no released model: it has no {CONFIG}") from None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ReleaseError(f"{path} holds no JSON object; {AGAIN}")
    return config


@contextlib.contextmanager
def _described(folder: Path) -> Iterator[None]:
    """Make one sentence of whatever is wrong with what `config.json` says of a model; a disk tells of itself."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ReleaseError) or (isinstance(error, OSError) and error.errno):
            raise
        problems = error.errors() if isinstance(error, ValidationError) else ()
        why = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems)
        told = " ".join((why or f"{type(error).__name__}: {error}").split())[:LONGEST_REASON]
        raise ReleaseError(f"{folder / CONFIG} describes no model that can be built here ({told}); {AGAIN}") from error


def _packed(family: type[Any], config: Mapping[str, Any], folder: Path) -> Any:
    """Return a release whose weights are packed; no exact weights are made on the way."""
    from tasks.quantise.packing import read_packed, without_memory

    with _described(folder):
        recipe = QuantiseRecipe.model_validate(config[PACKED])
        with without_memory():
            release = family.restore(config["model"], config["weights"], folder)
    read_packed(folder / WEIGHTS, release.network, recipe)
    return release


def _family(folder: Path, path: object) -> type[Any]:
    family = _named(path)
    if not (isinstance(family, type) and issubclass(family, Release)) or isabstract(family):
        raise ReleaseError(f"{folder / CONFIG} does not say of what family the model is; train it again")
    return family


def _computed(folder: Path, path: object, network: nn.Module) -> nn.Module:
    """Return what computes in place of a network."""
    by = _named(path)
    if by is None:
        raise ReleaseError(f"{folder / CONFIG} says that {path!r} computes, which does not exist here; make it again")
    with _described(folder):
        found: nn.Module = by(network, folder / ONNX)
        return found


def _named(path: object) -> Any:
    """Return what `config.json` names, none where that is not in the packages that it may name."""
    if isinstance(path, str) and path.split(".")[0] in FAMILIES:
        with contextlib.suppress(ImportError, AttributeError, ValueError):
            return imported(path)
    return None


def referred(folder: Path, name: str) -> Path:
    """Return the folder of an asset that a release in `folder` refers to as kind/key; `ValueError` if it is gone."""
    place = folder.parent.parent / name
    if not place.is_dir():
        raise ReleaseError(f"{name}, which {folder.parent.name}/{folder.name} was made from, is gone; make it again")
    return place


def reference(folder: Path) -> str:
    """Return kind/key of the asset in a folder, by which a release beside it refers to it."""
    return "/".join(folder.parts[-2:])


def write_weights(path: Path, model: nn.Module, stored: Callable[[str], bool]) -> None:
    """Write all entries of the model's state that belong into a release."""
    save_weights(path, {name: tensor for name, tensor in model.state_dict().items() if stored(name)})


def write_config(
    folder: Path,
    family: type[Release],
    config: Mapping[str, Any],
    weights: Mapping[str, Any],
    left_out: list[str],
    packed: QuantiseRecipe | None = None,
    computed_by: str | None = None,
) -> None:
    """Write `config.json`.

    Args:
        folder: where.
        family: what reads it.
        config: what `restore` gets as `model`.
        weights: where in the training the weights are from.
        left_out: entries of the model's state that are not in the weights, as the model has them from elsewhere.
        packed: how the weights are packed, if they are.
        computed_by: `module:class`, made from the network and the path of `ONNX`, that computes in its place.
    """
    path = f"{family.__module__}:{family.__qualname__}"
    content = {"release": path, "model": config, "weights": weights, "left_out": sorted(left_out)}
    if packed:
        content |= {PACKED: packed.model_dump(mode="json"), "quantization_config": packed.quantization_config()}
    if computed_by:
        content[COMPUTED_BY] = computed_by
    write_atomic(folder / CONFIG, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_packed_release(
    folder: Path,
    exact: Path,
    release: Any,
    recipe: QuantiseRecipe,
    config: Mapping[str, Any],
    logits: Callable[[Any], Tensor],
) -> tuple[dict[str, int], dict[str, float]]:
    """Pack a model that has a tokenizer, and prove that what is read back from the file says the same.

    Args:
        folder: of the new release.
        exact: folder of the release that it is made from.
        release: that release, whose network is packed in place.
        recipe: how.
        config: what `restore` gets as `model`, for a folder that holds all weights.
        logits: of a network, where somebody reads them: at padding, attention has nothing to look at, and its forms
            differ.

    Returns:
        Counts and metrics of the stage.

    Raises:
        ChildProcessError: logits differ by more than `PACKED_APART` from those of the model that computes quantised
            from exact weights.
    """
    from tasks.quantise.packing import pack_into, quantise_once

    network, weights = release.network, json.loads((exact / CONFIG).read_text())["weights"]
    parameters = sum(p.numel() for p in network.parameters())
    quantise_once(network, recipe)
    with torch.no_grad():
        expected = logits(network)
    pack_into(folder / WEIGHTS, network, recipe)
    write_config(folder, type(release), config, weights, [], packed=recipe)
    release.tokens.tokenizer.save_pretrained(str(folder / FOLDER))
    with torch.no_grad():
        apart = float((logits(type(release).from_release(folder).network) - expected).abs().max())
    if not apart <= PACKED_APART:
        raise ChildProcessError(f"the packed model's logits are off by {apart:.2g}, more than {PACKED_APART:g}")
    size = (folder / WEIGHTS).stat().st_size
    return {"bytes": size, "parameters": parameters}, {
        "bits_per_parameter": 8 * size / parameters,
        "logits_apart": apart,
    }


def write_computed_release(
    folder: Path, exact: Path, network: nn.Module, by: type[nn.Module], stored: Callable[[str], bool]
) -> None:
    """Write the release of a model whose file for ONNX Runtime lies in a folder already.

    Args:
        folder: of the new release.
        exact: folder of the release that the file was made from, of which all is taken over but the weights.
        network: of that release.
        by: what computes in its place, made from it and the path of the file.
        stored: says of an entry of the network's state whether `by` needs it.
    """
    content = json.loads((exact / CONFIG).read_text())
    write_weights(folder / WEIGHTS, network, stored)
    left_out = [name for name in network.state_dict() if not stored(name)]
    computed_by = f"{by.__module__}:{by.__qualname__}"
    write_config(
        folder, imported(content["release"]), content["model"], content["weights"], left_out, computed_by=computed_by
    )

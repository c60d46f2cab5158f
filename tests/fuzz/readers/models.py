"""Checkpoints, safetensors, and released models."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from configs.quantise import VERSION
from configs.weather_lm import MaeRecipe
from storage.checkpoints import FACTS, Checkpoints, load_weights, read_weights
from storage.packed_weights import packed_header
from storage.weights import read_tensors
from tasks.mae.released import MaeRelease
from tasks.training.release import CONFIG, WEIGHTS, Release, write_config, write_weights
from tests.fuzz.case import Files, Reader
from tests.fuzz.mutate import json_bytes, mutate_bytes, mutate_json, packed


def _tensors() -> dict[str, Tensor]:
    return {"model.weight": torch.ones(3, 2), "model.bias": torch.zeros(3), "step": torch.tensor([7])}


# -- safetensors --------------------------------------------------------------------------------------------------


@cache
def _safetensors() -> bytes:
    from safetensors.torch import save

    remark = {"packed_weights": json.dumps({"layout": "two_bits", "version": VERSION, "sha256": "0" * 64})}
    return save(_tensors(), metadata=remark)


def mutate_safetensors(random: Random, data: bytes) -> bytes:
    """Return a file whose header says something else, or whose bytes are others."""
    chance = random.random()
    if chance < 0.25:
        return mutate_bytes(random, data)
    length = int.from_bytes(data[:8], "little")
    header = json_bytes(random, mutate_json(random, json.loads(data[8 : 8 + length])))
    size = len(header).to_bytes(8, "little") if random.random() < 0.95 else packed(random, "<Q")
    return size + header + data[8 + length :]


WAYS = (read_tensors, read_weights, packed_header, lambda path: load_weights(path, torch.nn.Linear(2, 3)))


def _make_safetensors(random: Random) -> Files:
    data = mutate_safetensors(random, _safetensors()) if random.random() < 0.95 else _safetensors()
    return {f"{random.randrange(len(WAYS))}.safetensors": data}


def _read_safetensors(given: Path, made: Path) -> object:
    (path,) = given.iterdir()
    return WAYS[int(path.stem)](path)


# -- checkpoints --------------------------------------------------------------------------------------------------


@cache
def _checkpoint() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        Checkpoints(Path(folder), 2).save(7, _tensors(), {"epoch": 1, "history": [0.5]})
        return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def _make_checkpoint(random: Random) -> Files:
    files = dict(_checkpoint())
    facts = next(name for name in files if name.endswith(FACTS))
    weights = next(name for name in files if name.endswith(".safetensors"))
    said = json.loads(files[facts])
    if random.random() < 0.6:
        files[weights] = mutate_safetensors(random, files[weights])
        if random.random() < 0.8:  # as if that had been written
            digest = hashlib.sha256(files[weights]).hexdigest()
            said["files"][weights.rpartition("/")[2]] = [len(files[weights]), digest]
    if random.random() < 0.6:
        said = mutate_json(random, said)
    files[facts] = json_bytes(random, said)
    if random.random() < 0.1:
        del files[random.choice((facts, weights))]
    return files


def _read_checkpoint(given: Path, made: Path) -> object:
    checkpoints = Checkpoints(given, 2)
    checkpoints.kept()
    newest, passed_over = checkpoints.latest()
    if newest is None:
        return passed_over
    found = Checkpoints.empty(newest, "model.")
    checkpoints.load(newest, found)
    checkpoints.load(newest, _tensors())
    return found


# -- released models ----------------------------------------------------------------------------------------------

MODEL = {"patch": [2, 4, 4], "window": [2, 2, 2], "width": 6, "depths": [1], "heads": [1], "decoder_width": 6,
         "decoder_depth": 0, "decoder_heads": 1}  # fmt: skip
TRAINING = {"epochs": 1, "batch_size": 1, "learning_rates": {"all": 1e-3}}


@cache
def _release() -> dict[str, bytes]:
    recipe = MaeRecipe.model_validate({"model": MODEL, "training": TRAINING}).model_dump(mode="json")
    of_values = {"count": 9, "mean": 280.0, "std": 5.0, "min": 260.0, "max": 300.0, "nan_share": 0.0}
    statistics = [{"channel": name, **of_values} for name in ("t2m", "msl")]
    described = {"recipe": recipe, "window": [2, 8, 8], "statistics": statistics}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = MaeRelease.restore(described, {}, folder).network
        write_weights(folder / WEIGHTS, network, lambda entry: True)
        write_config(folder, MaeRelease, described, {"step": 7, "metrics": {"loss": 0.5}}, [])
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _make_release(random: Random) -> Files:
    files = dict(_release())
    chance = random.random()
    if chance < 0.65:
        said: Any = mutate_json(random, json.loads(files[CONFIG]))
        if isinstance(said, dict) and random.random() < 0.1:
            said |= random.choice((
                {"packed": True}, {"packed": {"ternary": ["*"]}}, {"computed_by": "os:system"},
                {"release": "tasks:code"},
                {"computed_by": "tasks.mae.onnx:OnnxMae"}, {"release": "tasks.fire.released:FireRelease"},
                {"release": 7},
                {"release": "tasks.training.release:Release"}, {"release": "tasks.no:Body"}, {"release": "tasks.mae"},
            ))  # fmt: skip
        files[CONFIG] = json_bytes(random, said)
    elif chance < 0.95:
        files[WEIGHTS] = mutate_safetensors(random, files[WEIGHTS])
    else:
        del files[random.choice((CONFIG, WEIGHTS))]
    return files


def _read_release(given: Path, made: Path) -> object:
    return Release.from_release(given)


READERS = (
    Reader("checkpoint", ("storage.checkpoints",), _make_checkpoint, _read_checkpoint, least=50),
    Reader("safetensors", ("storage.checkpoints", "storage.weights", "storage.packed_weights"),
           _make_safetensors, _read_safetensors),
    Reader("release", ("tasks.training.release", "tasks.mae.released"), _make_release, _read_release, least=70),
)  # fmt: skip

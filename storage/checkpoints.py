"""Checkpoints and released weights on disk: safetensors throughout, whole or not there.

A checkpoint is a `torch.distributed.checkpoint` folder (one safetensors file per rank) with `checkpoint.json`, which
holds the caller's facts and the size and SHA-256 of each file. DCP's own file format is not used, because it reads
its metadata and all that is not a tensor with pickle.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException

from storage.files import atomic_path, fsync, remove_tree, unreadable, write_atomic
from storage.hashing import canonical_json, file_sha256

FACTS = "checkpoint.json"
LONGEST_REASON = 500
"""Characters of what libraries say."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint: its step, its folder, and the facts that were saved with it."""

    step: int
    folder: Path
    facts: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one training, `step-00000120/` and so on; the newest few are kept."""

    def __init__(self, folder: Path, keep_last: int) -> None:
        self._folder, self._keep_last = folder, keep_last

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint; every rank calls it. Equal names hold equal tensors on all ranks."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

        partial = self._folder / f".step-{step:08d}.partial"
        alone, leads = not dist.is_initialized(), not dist.is_initialized() or dist.get_rank() == 0
        if leads:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        if not alone:
            dist.barrier()
        writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
        dense = {name: _dense(t).contiguous() for name, t in tensors.items()}
        with _without_remarks():
            dcp.save(dense, storage_writer=writer, no_dist=alone)
        if leads:
            self._finish(partial, step, facts)
        if not alone:
            dist.barrier()

    def _finish(self, partial: Path, step: int, facts: Mapping[str, Any]) -> None:
        files = {path.name: (path.stat().st_size, file_sha256(path)) for path in sorted(partial.iterdir())}
        for name in files:
            fsync(partial / name)
        write_atomic(partial / FACTS, canonical_json({"step": step, "files": files, "facts": facts}))
        target = self._path(step)
        remove_tree(target)
        partial.replace(target)
        fsync(self._folder)
        for path in self._folders()[self._keep_last :]:
            remove_tree(path)

    def remove_half_written(self) -> None:
        """Delete what kills have left behind while a checkpoint was written or deleted."""
        for folder in self._folder.glob(".step-*"):
            shutil.rmtree(folder)

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest whole checkpoint, and a sentence on each damaged one that was passed over."""
        passed_over: list[str] = []
        for folder in self._folders():
            try:
                return self._read(folder), passed_over
            except PermissionError as error:
                raise ValueError(f"{error.filename} {unreadable(error)}") from None
            except (OSError, ValueError) as error:
                passed_over.append(f"checkpoint {folder.name} is damaged ({error}); the one before it is used")
        return None, passed_over

    def at(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step."""
        return self._read(self._path(step), verify=False)

    def kept(self) -> list[Checkpoint]:
        """Return all checkpoints whose facts can be read, newest first."""
        found = []
        for folder in self._folders():
            try:
                found.append(self._read(folder, verify=False))
            except (OSError, ValueError):
                continue
        return found

    @staticmethod
    def _read(folder: Path, *, verify: bool = True) -> Checkpoint:
        try:
            content = json.loads((folder / FACTS).read_bytes())
            files = [(name, size, sha256) for name, (size, sha256) in content["files"].items()]
            checkpoint = Checkpoint(int(folder.name.removeprefix("step-")), folder, dict(content["facts"]))
            if content["step"] != checkpoint.step:
                raise ValueError("another step")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"{FACTS} is not what was written") from None
        for name, size, sha256 in files if verify else ():
            path = folder / name
            if path.stat().st_size != size or file_sha256(path) != sha256:
                raise ValueError(f"{name} is not what was written")
        return checkpoint

    def load(self, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
        """Read tensors of a checkpoint into the given ones, in place; every rank calls it."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

        reader = HuggingFaceStorageReader(str(checkpoint.folder))
        dense = {name: _dense(t) for name, t in tensors.items()}
        with _without_remarks(), _readable(checkpoint):
            dcp.load(dense, storage_reader=reader, no_dist=not dist.is_initialized())

    @staticmethod
    def empty(checkpoint: Checkpoint, prefix: str) -> dict[str, Tensor]:
        """Return empty tensors for everything in a checkpoint whose name starts with a prefix, to be loaded into."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

        with _readable(checkpoint):
            metadata = HuggingFaceStorageReader(str(checkpoint.folder)).read_metadata().state_dict_metadata
            return {
                name: torch.empty(entry.size, dtype=entry.properties.dtype)  # type: ignore[union-attr]
                for name, entry in metadata.items()
                if name.startswith(prefix)
            }

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"

    def _folders(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"), reverse=True)


def _dense(tensor: Tensor) -> Tensor:
    """Return a detached view with at least one dimension, as DCP's safetensors reader needs it."""
    return tensor.detach().reshape(1) if tensor.ndim == 0 else tensor.detach()


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep quiet about DCP being used by a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


@contextlib.contextmanager
def _readable(checkpoint: Checkpoint) -> Iterator[None]:
    """Make one sentence of what DCP and safetensors say, who have kinds of their own, of a file or tensors unfit."""
    try:
        yield
    except (Exception, CheckpointException) as error:
        told = " ".join(str(error).split())[:LONGEST_REASON]
        raise ValueError(
            f"{checkpoint.folder} cannot be continued from ({told}); delete it to go on from the one before"
        ) from error


def untied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as a file holds them, dense and on the CPU; of tied ones the first by name is left."""
    unique: dict[tuple[Any, ...], str] = {}
    for name in sorted(tensors):
        t = tensors[name]
        unique.setdefault((t.device, t.data_ptr(), t.shape, t.stride(), t.numel() or name), name)
    return {name: tensors[name].detach().cpu().contiguous() for name in unique.values()}


def save_weights(path: Path, tensors: Mapping[str, Tensor], remark: tuple[str, str] = ("format", "pt")) -> None:
    """Write `untied` tensors as one safetensors file with a remark in its header. Equal tensors, equal bytes.

    There is one remark, for safetensors writes several in any order.
    """
    with atomic_path(path) as temporary:
        kept = {name: tensor.clone() for name, tensor in untied(tensors).items()}
        save_file(kept, temporary, metadata=dict([remark]))


def load_weights(path: Path, model: nn.Module, left_out: frozenset[str] = frozenset()) -> None:
    """Read a safetensors file into a model on the CPU; `ValueError` when they do not fit each other.

    `left_out` names what the file does not hold because the model has it from elsewhere.
    """
    put_weights(path, read_weights(path), model, left_out)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; `ValueError` where it cannot be read as one."""
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own kinds, without a common base
        raise ValueError(f"{path} cannot be read as safetensors ({error})") from None


def put_weights(
    path: Path, tensors: Mapping[str, Tensor], model: nn.Module, left_out: frozenset[str] = frozenset()
) -> None:
    """Put the tensors of a file into a model, as `load_weights` does. What has no memory yet becomes the file's own."""
    state = model.state_dict(keep_vars=True)
    given = {_identity(state[name]): tensors[name] for name in tensors if name in state}
    missing = [n for n, t in state.items() if n not in tensors and n not in left_out and _identity(t) not in given]
    unknown = [name for name in tensors if name not in state]
    shapes = [name for name, t in tensors.items() if name in state and t.shape != state[name].shape]
    if missing or unknown or shapes:
        faults = {"lacks": missing, "has beyond the model": unknown, "has in another shape": shapes}
        words = "; it ".join(f"{what} {', '.join(names[:3])}" for what, names in faults.items() if names)
        raise ValueError(f"{path} does not fit the model: it {words}")
    in_memory = {name: tensor for name, tensor in tensors.items() if not state[name].is_meta}
    without = {name: given[_identity(t)] for name, t in state.items() if t.is_meta and _identity(t) in given}
    model.load_state_dict(in_memory, strict=False)
    model.load_state_dict(without, strict=False, assign=True)


def _identity(tensor: Tensor) -> int:
    """Return what tied tensors have in common."""
    return tensor.data_ptr() or id(tensor)

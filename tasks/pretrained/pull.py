"""The stages that bring a published checkpoint into a root: a unit per file, and one for what is rewritten."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.pretrained import HubCheckpoint
from storage.assets import SCRATCH, Unit
from storage.files import atomic_path, walk_files
from storage.hashing import file_sha256
from storage.raw import RawInput
from storage.weights import read_tensors
from tasks.pretrained.choice import REWRITTEN, choose
from tasks.stage import Job, Label, StageResult, stage
from tasks.units import UnitOutput


@stage("pretrained")
def pretrained_from_hub(job: Job, *, checkpoint: HubCheckpoint, label: Label) -> StageResult:
    """Fetch a checkpoint from the hub; every file is compared with the digest that the hub lists.

    `label` is what people call it.
    """
    from tasks.pretrained.hub import list_files  # plans do without the client

    listing = list_files(checkpoint)
    choice = choose(listing.files, f"{checkpoint.hub} at {checkpoint.revision}")
    units = []
    for name, members in choice.units().items():
        files = [listing.files[member] for member in members]
        units.append(job.unit(name, [[file.name, file.digest] for file in files], (checkpoint, files)))
    job.map(_from_hub, units)
    return StageResult({"commit": listing.commit, **_facts(job.folder)})


@stage("pretrained")
def pretrained_from_files(job: Job, *, raw: RawInput, names: Mapping[str, str], label: Label) -> StageResult:
    """Copy a checkpoint from files; `names` gives the SHA-256 of each by its name, `label` is what people call it."""
    paths = raw.paths()
    units = []
    for name, members in choose(names, "the folder").units().items():
        identity = [[member, names[member]] for member in members]
        units.append(job.unit(name, identity, {member: (paths[names[member]], names[member]) for member in members}))
    job.map(_from_files, units)
    return StageResult(_facts(job.folder))


def wanted_files(folder: Path) -> list[Path]:
    """Return the files of a folder that make a checkpoint; `ValueError` where it holds none."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name the folder that holds the checkpoint's files")
    choice = choose((path.name for path in folder.iterdir() if path.is_file()), str(folder))
    return [folder / name for name in sorted({*choice.kept, *choice.rewritten})]


def _from_hub(folder: Path, unit: Unit) -> UnitOutput:
    from tasks.pretrained.hub import fetch_file

    checkpoint, files = unit.payload
    scratch = folder / SCRATCH
    if unit.id != REWRITTEN:
        (file,) = files
        fetch_file(checkpoint, file, scratch, folder / file.name)
        return UnitOutput([file.name])
    sources = {file.name: scratch / f"{file.digest}.whole" for file in files}
    for file in files:
        if not sources[file.name].exists():
            fetch_file(checkpoint, file, scratch, sources[file.name])
    return _rewritten(folder, sources)


def _from_files(folder: Path, unit: Unit) -> UnitOutput:
    sources: dict[str, tuple[Path, str]] = unit.payload
    if unit.id == REWRITTEN:
        for path, sha256 in sources.values():
            _require_unchanged(path, path, sha256)
        return _rewritten(folder, {name: path for name, (path, _) in sources.items()})
    for name, (path, sha256) in sources.items():
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(path, temporary)
            _require_unchanged(path, temporary, sha256)
    return UnitOutput(list(sources))


def _require_unchanged(path: Path, copy: Path, sha256: str) -> None:
    if file_sha256(copy) != sha256:
        raise ValueError(f"{path} changed since it was first read; run again when nobody writes it")


def _rewritten(folder: Path, sources: Mapping[str, Path]) -> UnitOutput:
    """Rewrite weights beside the asset, so that a kill leaves nothing in it."""
    from tasks.pretrained.convert import convert

    fresh = folder / SCRATCH / "rewritten"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    convert(sources, folder / SCRATCH, fresh)
    names = sorted(walk_files(fresh))
    for name in names:
        (fresh / name).replace(folder / name)
    return UnitOutput(names)


def _facts(folder: Path) -> dict[str, Any]:
    """Return what the manifest says of the weights; `ValueError` where they are no safetensors."""
    tensors = [tensor for path in sorted(folder.glob("*.safetensors")) for tensor in read_tensors(path).values()]
    types = sorted({tensor.dtype for tensor in tensors})
    return {"parameters": sum(tensor.elements for tensor in tensors), "types": ", ".join(types)}

"""Environments of peers that Millrace does not depend on: one for each in `.venv-bench`, at the versions named here."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import REPOSITORY

FOLDER = REPOSITORY / ".venv-bench"
CONSTRAINTS = REPOSITORY / "constraints.txt"


@dataclass(frozen=True, slots=True)
class Peer:
    """What is installed for a peer."""

    packages: tuple[str, ...]
    """The peer and its version first."""
    pinned: bool = True
    """Everything else has the versions that Millrace is tested with; a peer that does not run with those gets the ones
    it asks for."""


PEERS = {
    "xbatcher": Peer(("xbatcher==0.4.0", "xarray", "zarr", "netCDF4", "dask")),
    "litdata": Peer(("litdata==0.2.76", "simplejpeg", "pillow", "numpy")),
    "img2dataset": Peer(("img2dataset==1.47.0",), pinned=False),
}


def peer_python(name: str) -> Path:
    """Return the interpreter of a peer's environment, which is made where it is missing or out of date.

    `ValueError` when its packages cannot be installed.
    """
    peer, folder = PEERS[name], FOLDER / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = "\n".join((sys.version, *peer.packages, CONSTRAINTS.read_text() if peer.pinned else ""))
    if python.exists() and ready.exists() and ready.read_text() == wanted:
        return python
    print(f"  installing {peer.packages[0]} into {FOLDER.name}/{name}", flush=True)
    constraint = ("--constraint", CONSTRAINTS) if peer.pinned else ()
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *constraint, *peer.packages], check=True, timeout=900
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise ValueError(
            f"{', '.join(peer.packages)} cannot be installed into {folder} (pip's message stands above: {error}); the "
            "comparison needs them: see to the package index and run the benchmark again"
        ) from error
    ready.write_text(wanted)
    return python

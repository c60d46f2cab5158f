"""The environment of peers that Millrace does not depend on: `.venv-bench`, with the same pinned versions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.process import REPOSITORY

PEERS = ("xbatcher==0.4.0", "xarray", "zarr", "netCDF4", "dask")
FOLDER = REPOSITORY / ".venv-bench"
CONSTRAINTS = REPOSITORY / "constraints.txt"


def peer_python() -> Path:
    """Return the interpreter of the peers' environment, which is made where it is missing or out of date.

    `ValueError` when its packages cannot be installed.
    """
    python, ready = FOLDER / "bin" / "python", FOLDER / ".ready"
    wanted = "\n".join((sys.version, *PEERS, CONSTRAINTS.read_text()))
    if python.exists() and ready.exists() and ready.read_text() == wanted:
        return python
    print(f"  installing {PEERS[0]} into {FOLDER.name}", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, *PEERS], check=True, timeout=900
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise ValueError(
            f"{', '.join(PEERS)} cannot be installed into {FOLDER} (pip's message stands above: {error}); the "
            "comparison needs them: see to the package index and run the benchmark again"
        ) from error
    ready.write_text(wanted)
    return python

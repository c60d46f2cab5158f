"""The `millrace` command in a process of its own, as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY


def millrace(
    *arguments: str, root: Path, cwd: Path = REPOSITORY, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        cwd=cwd,
        env=os.environ | {"MILLRACE_ROOT": str(root), "COLUMNS": "200"} | environment,
        text=True,
        capture_output=True,
        timeout=300,
    )

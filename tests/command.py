"""The `millrace` command in a process of its own, as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import warm
from tests.conftest import REPOSITORY


def millrace(
    *arguments: str, root: Path, cwd: Path = REPOSITORY, cold: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; cold: in a new interpreter, which finds nothing imported."""
    variables = {"MILLRACE_ROOT": str(root), "COLUMNS": "200"} | environment
    if cold:
        command, pipes = [sys.executable, "-m", "flows", *arguments], {"text": True, "capture_output": True}
        return subprocess.run(command, cwd=cwd, env=os.environ | variables, timeout=300, **pipes)
    process = warm.start("flows", *arguments, cwd=cwd, **variables)
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

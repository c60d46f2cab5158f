"""A web site in a process of its own; its code is not imported here, since no crawl's result depends on it."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

IN_KEY = False

PROGRAM = "tasks.samples.website"
REQUESTS = "/.well-known/requests"
"""Where a site answers with a JSON object of how often every path was asked for."""


class Certificate(NamedTuple):
    """PEM files for https."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class RunningSite:
    """A web site that runs in a process of its own."""

    host: str
    port: int
    https: bool

    @property
    def address(self) -> str:
        """The site's URL, without a path."""
        return f"http{'s' * self.https}://{self.host}:{self.port}"

    def requests(self) -> dict[str, int]:
        """Return how often every path was asked for."""
        context = ssl._create_unverified_context() if self.https else None
        with urllib.request.urlopen(f"{self.address}{REQUESTS}", context=context, timeout=20) as answer:
            return json.load(answer)


@contextlib.contextmanager
def serve(folder: Path, certificate: Certificate | None = None) -> Iterator[RunningSite]:
    """Run the web site of a folder on a free port while the block runs; it ends with this process at the latest."""
    command = [sys.executable, "-m", PROGRAM, str(folder), "--parent", str(os.getpid())]
    if certificate:
        command += ["--certificate", str(certificate.certificate), "--key", str(certificate.key)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent.parent)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("listening "):
            raise RuntimeError(f"the web site of {folder} did not start; its message stands above")
        yield RunningSite("127.0.0.1", int(line.split()[1]), certificate is not None)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

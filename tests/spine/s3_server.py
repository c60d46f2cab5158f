"""An S3 server of moto's in a process of its own, on a free port of this machine, and roots on it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.assets import AssetStore
from storage.remote import working_folder
from storage.stores import open_store

BUCKET = "millrace"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Run the server while the block runs; yield its address. The bucket exists."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | {"MOTO_S3_CUSTOM_ENDPOINTS": ""}, **quiet)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None, "the S3 server ended"
                assert time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.1)
        request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=20).read()
        yield address
    finally:
        process.kill()
        process.wait()


def store(url: str) -> AssetStore:
    """Return the store of a root, as the machine that MILLRACE_CACHE makes has it."""
    return open_store(working_folder(url))


def on_another_machine(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str = "two") -> AssetStore:
    """Return the store as a machine has it that was never there."""
    monkeypatch.setenv("MILLRACE_CACHE", str(tmp_path / name))
    return store(url)

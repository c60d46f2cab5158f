"""One module's tests, run in forks of a process that has every library loaded, each fork with one fault."""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

import pytest

MEMORY = 8 << 30
"""Bytes that a fork may take: a fault in a size must not take the machine."""
OPTIONS = ("-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0")


@dataclass
class Outcome:
    """What became of the tests."""

    code: int | None
    """Of pytest, None where time ran out."""
    seconds: float
    failed: str = ""
    """The first test that failed."""
    loaded: Mapping[str, str] = field(default_factory=dict)
    """Modules and their files, where asked for."""


@dataclass(frozen=True)
class Fault:
    """The text that a module is loaded from instead of its file; a finder of modules."""

    module: str
    """Path of its file."""
    text: str

    @property
    def name(self) -> str:
        """Return the name that it is imported by."""
        return self.module.removesuffix(".py").replace("/", ".")

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return how to load the module; None for every other one."""
        if name != self.name:
            return None
        place = str(Path(self.module).absolute())
        return spec_from_file_location(name, place, loader=_Faulty(name, place, self.text))


class _Faulty(SourceFileLoader):
    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec", dont_inherit=True)


class _FirstFailure:
    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


def run_forked(tests: Sequence[str], limit: float, fault: Fault | None = None, *, ask: bool = False) -> Outcome:
    """Run tests in a fork, with a fault or without; with `ask` it tells which modules were loaded.

    Raises:
        RuntimeError: the module that the fault is for is loaded already, so no fork could load it with the fault.
    """
    if fault and fault.name in sys.modules:
        raise RuntimeError(f"{fault.name} was loaded before the fault was put into it")
    begin = time.monotonic()
    read, write = os.pipe()
    folder = tempfile.mkdtemp(prefix="mutant-")
    child = os.fork()
    if not child:
        os.close(read)
        _child(tests, folder, write, fault, ask)
    os.close(write)
    try:
        content = _read_until(read, begin + limit)
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - begin
    if content is None:
        return Outcome(None, seconds)
    if not content:
        return Outcome(-1, seconds, "the process ended itself")
    code, failed, loaded = json.loads(content)
    return Outcome(code, seconds, failed, loaded)


def _read_until(pipe: int, end: float) -> bytes | None:
    content = b""
    while (left := end - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            piece = os.read(pipe, 1 << 16)
            if not piece:
                return content
            content += piece
    return None


def _child(tests: Sequence[str], folder: str, pipe: int, fault: Fault | None, ask: bool) -> None:
    code, first = -1, _FirstFailure()
    try:
        os.setsid()
        _silence()
        if fault:
            sys.meta_path.insert(0, fault)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = folder
        os.environ["MILLRACE_SHARED_DATA"] = folder  # tests on real files skip: a score is the same everywhere
        code = int(pytest.main([*OPTIONS, f"--basetemp={folder}/tests", *tests], plugins=[first]))
    except BaseException as error:  # the parent has to hear of whatever a fault does
        first.name = first.name or f"{type(error).__name__}"
    with open(pipe, "wb") as out:
        out.write(json.dumps([code, first.name, _loaded() if ask else {}]).encode())
    os._exit(0)


def _loaded() -> dict[str, str]:
    files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    return {name: file for name, file in files.items() if not name.startswith("__")}


def _silence() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def preload(loaded: Mapping[str, str], module: str) -> None:
    """Load modules, so that forks have them: all but tests and what imports `module`, at whatever remove."""
    here = f"{Path.cwd()}{os.sep}"
    ours = {name: file for name, file in loaded.items() if file.startswith(here) and "site-packages" not in file}
    tests = {name for name in ours if name.split(".")[0] == "tests" or name.split(".")[-1].startswith("test_")}
    for name in loaded.keys() - _importers(Fault(module, "").name, ours) - tests:
        with contextlib.suppress(Exception):  # what cannot be loaded alone is left to the tests
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _importers(target: str, files: Mapping[str, str]) -> set[str]:
    """Return a module and those that import it or one of its importers, anywhere in their text."""
    imports = {name: _imports(Path(file)) for name, file in files.items()}
    found, fresh = {target}, {target}
    while fresh:
        fresh = {name for name, read in imports.items() if read & fresh} - found
        found |= fresh
    return found


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names

"""The code behind a stage as part of its key: change a helper, and what it made is made again."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from storage.files import write_atomic

PACKAGES = ("tasks", "models", "storage")
INFRASTRUCTURE = frozenset({
    "tasks", "storage", "models",
    "tasks.stage", "tasks.units", "tasks.code", "tasks.reasons", "tasks.session", "tasks.progress",
    "tasks.image_text.hosts", "tasks.image_text.live", "tasks.samples.site_process",
    "tasks.training.events", "tasks.training.sweep", "tasks.training.torchrun", "tasks.training.tracking",
    "storage.assets", "storage.files", "storage.hashing", "storage.locks", "storage.manifest", "storage.raw",
    "storage.remote", "storage.space",
})  # fmt: skip
"""Modules that decide when and where a stage works, not what it writes."""


class Facts(NamedTuple):
    """What counts of one module: the digest of its code, and the names that it imports."""

    digest: str
    imports: list[str]


class Code:
    """Digests of stages' code; facts about modules are remembered in a file by the digest of their source."""

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._facts: dict[str, Facts] = {}
        if memory is not None and memory.exists():
            self._facts = {source: Facts(*facts) for source, facts in json.loads(memory.read_bytes()).items()}

    def digest(self, module: str) -> str:
        """Return a digest of a module and of every project module that it imports, at any depth.

        Comments, docstrings and formatting do not count, nor does the infrastructure that merely runs stages, nor
        `configs`, whose values are in the key already.
        """
        reached = self.reached(module)
        return hashlib.sha256(
            "\n".join(f"{name} {reached[name].digest}" for name in sorted(reached)).encode()
        ).hexdigest()

    def reached(self, module: str) -> dict[str, Facts]:
        """Return the module and all project modules that its imports lead to, infrastructure left out."""
        found: dict[str, Facts] = {}
        queue = [module]
        while queue:
            name = queue.pop()
            if name not in found and (name == module or name not in INFRASTRUCTURE):
                found[name] = self._module(name)
                queue.extend(n for n in found[name].imports if _path(n) is not None)
        return found

    def _module(self, name: str) -> Facts:
        path = _path(name)
        assert path is not None, f"module {name} has no source"
        text = path.read_bytes()
        source = hashlib.sha256(text).hexdigest()
        with self._lock:
            if source not in self._facts:
                self._facts[source] = _facts(text)
                if self._memory is not None and os.access(self._memory.parent, os.W_OK):
                    write_atomic(self._memory, json.dumps(self._facts))
            return self._facts[source]


def _facts(text: bytes) -> Facts:
    tree = ast.parse(text)
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
            node.body = body or [ast.Pass()]
    digest = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
    return Facts(digest, sorted(name for name in imports if name.split(".")[0] in PACKAGES))


@cache
def _path(name: str) -> Path | None:
    """Return the file of a module, None for names that are no module; imports nothing but the top package."""
    top, *inner = name.split(".")
    spec = find_spec(top)
    for place in (spec.submodule_search_locations or []) if spec else []:
        base = Path(place, *inner)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None

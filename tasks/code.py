"""The code behind a stage as part of its key: change a helper, and what it made is made again."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import threading
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from storage.files import write_atomic

PACKAGES = ("tasks", "models", "storage")
INFRASTRUCTURE = "IN_KEY"
"""A module that decides when and where a stage works, or what people see, and not what it writes, says so by the line
`IN_KEY = False`; then it is part of no key."""
IN_KEY = False
_parsing = threading.Lock()
"""Held while code is parsed: Python 3.11 counts how deep it is for all threads together, and fails where two parse."""


class Facts(NamedTuple):
    """What counts of one module: the digest of its code, and the names that it imports; nothing of infrastructure."""

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

    def digest(self, *modules: str) -> str:
        """Return a digest of modules and of every project module that they import, at any depth.

        Comments, docstrings and formatting do not count, nor does the infrastructure that merely runs stages, nor
        `configs`, whose values are in the key already.
        """
        reached = self.reached(*modules)
        return hashlib.sha256(
            "\n".join(f"{name} {reached[name].digest}" for name in sorted(reached)).encode()
        ).hexdigest()

    def reached(self, *modules: str) -> dict[str, Facts]:
        """Return the modules and all project modules that their imports lead to, infrastructure left out."""
        found: dict[str, Facts] = {}
        seen: set[str] = set()
        queue = list(modules)
        with self._lock:
            known = len(self._facts)
            while queue:
                name = queue.pop()
                if name not in seen and (facts := self._module(name)).digest:
                    found[name] = facts
                    queue.extend(n for n in facts.imports if _path(n) is not None)
                seen.add(name)
            if len(self._facts) > known and self._memory is not None and os.access(self._memory.parent, os.W_OK):
                write_atomic(self._memory, json.dumps(self._facts))
        return found

    def absent(self, builds: Iterable[str]) -> str:
        """Return the first of `module:Class` whose module is gone; empty where all are there."""
        return next((path for path in builds if _path(path.partition(":")[0]) is None), "")

    def _module(self, name: str) -> Facts:
        path = _path(name)
        assert path is not None, f"module {name} has no source"
        text = path.read_bytes()
        source = hashlib.sha256(text).hexdigest()
        if source not in self._facts:
            self._facts[source] = _facts(text)
        return self._facts[source]


def _facts(text: bytes) -> Facts:
    with _parsing:
        tree = ast.parse(text)
    if any(ast.unparse(statement) == f"{INFRASTRUCTURE} = False" for statement in tree.body):
        return Facts("", [])
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

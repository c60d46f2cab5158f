"""The code behind a stage as part of its key: change a helper, and what it made is made again."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("tasks", "models", "storage")
INFRASTRUCTURE = frozenset({
    "tasks", "storage", "models",
    "tasks.stage", "tasks.units", "tasks.code", "tasks.session", "tasks.progress",
    "storage.assets", "storage.files", "storage.hashing", "storage.locks", "storage.raw",
})  # fmt: skip
"""Modules that decide when and where a stage works, not what it writes."""


def code_digest(module: str) -> str:
    """Return a digest of a module and of every project module that it imports, at any depth.

    Comments, docstrings and formatting do not count, nor does the infrastructure that merely runs stages, nor
    `configs`, whose values are in the key already.
    """
    digest = hashlib.sha256()
    for name in sorted(imported_modules(module)):
        digest.update(f"{name}\n{_normalised(name)}\n".encode())
    return digest.hexdigest()


@cache
def imported_modules(module: str) -> frozenset[str]:
    """Return the module and all project modules that it reaches by import statements, infrastructure left out."""
    found: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        if name in found or (name in INFRASTRUCTURE and name != module):
            continue
        found.add(name)
        queue.extend(_project_imports(name))
    return frozenset(found)


def _project_imports(name: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(_source(name))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [n for n in names if n.split(".")[0] in PACKAGES and _path(n) is not None]


@cache
def _path(name: str) -> Path | None:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _source(name: str) -> str:
    path = _path(name)
    assert path is not None, f"module {name} has no source"
    return path.read_text(encoding="utf-8")


@cache
def _normalised(name: str) -> str:
    tree = ast.parse(_source(name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
            node.body = body or [ast.Pass()]
    return ast.unparse(tree)

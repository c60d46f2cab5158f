"""Who imports whom. `python -m tests.imports` draws it into docs/imports.md."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from tests.conftest import REPOSITORY

PACKAGES = ("configs", "storage", "models", "tasks", "flows")
DRAWING = REPOSITORY / "docs" / "imports.md"
NOW = "## Now"

Graph = Mapping[str, set[str]]


def modules() -> dict[str, Path]:
    """Return every module of product code with its file; a package stands for its `__init__`.

    `python -m flows` is no module: nothing can import it.
    """
    found = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    files = [path for path in found if path.name != "__main__.py"]
    return {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path for path in files
    }


@cache
def import_graph() -> dict[str, set[str]]:
    """Return what each module imports of product code, wherever the statement stands."""
    known = modules()
    graph = {}
    for name, path in known.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & known.keys()) or {node.module}
        graph[name] = (found & known.keys()) - {name}
    return graph


def circles(graph: Graph) -> list[set[str]]:
    """Return the sets of modules that all lead to each other."""
    reached = {name: _reached(graph, name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        circle = {other for other in reached[name] if name in reached[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reached(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    queue = [start]
    while queue:
        for name in graph[queue.pop()] - found:
            found.add(name)
            queue.append(name)
    return found


def room_of(module: str) -> str:
    """Return the folder that a module lies in, as `tasks.fire`."""
    path = REPOSITORY.joinpath(*module.split("."))
    return module if path.is_dir() else module.rpartition(".")[0]


def rooms() -> dict[str, set[str]]:
    """Return which rooms the modules of each room import from, besides its own."""
    graph: dict[str, set[str]] = {}
    for name, imported in import_graph().items():
        graph.setdefault(room_of(name), set()).update(map(room_of, imported))
    return {name: others - {name} for name, others in graph.items()}


def drawing() -> str:
    """Return the rooms, each below all that it imports from, and the circles of modules; rooms form no circle."""
    graph = rooms()
    order = list(TopologicalSorter({name: sorted(graph[name]) for name in sorted(graph)}).static_order())
    wide = max(map(len, order))
    lines = [f"{name:{wide}} -> {', '.join(sorted(graph[name])) or '-'}" for name in order]
    found = circles(import_graph())
    told = [f"circles of modules: {len(found)}", *(f"  {' <-> '.join(sorted(circle))}" for circle in found)]
    return "\n".join(["```", *lines, "", *told, "```"]) + "\n"


def main() -> None:
    """Draw the imports as they are, below what they were."""
    before, _, _ = DRAWING.read_text().partition(NOW)
    DRAWING.write_text(f"{before}{NOW}\n\n{drawing()}")


if __name__ == "__main__":
    main()

"""The benchmarks: every module here has `run(bench: Bench) -> list[Figure]` and is found by its name.

One with `ON_REQUEST = True` takes too long to run with all others: it runs only when named, keeps its work folder, and
resumes there.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def benchmark_names(*, on_request: bool = True) -> list[str]:
    """Return the names of all benchmarks, with or without those that run on request only."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in names if on_request or not runs_on_request(load_benchmark(name))]


def runs_on_request(module: ModuleType) -> bool:
    """Return whether a benchmark runs only when named."""
    return getattr(module, "ON_REQUEST", False)


def load_benchmark(name: str) -> ModuleType:
    """Import a benchmark; `ValueError` when there is none of that name."""
    if name not in benchmark_names():
        raise ValueError(f"there is no benchmark {name!r}; there are: {', '.join(benchmark_names())}")
    return importlib.import_module(f"{__name__}.{name}")

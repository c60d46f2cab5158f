"""The benchmarks: every module here has `run(bench: Bench) -> list[Figure]` and is found by its name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def benchmark_names() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_benchmark(name: str) -> ModuleType:
    """Import a benchmark; `ValueError` when there is none of that name."""
    if name not in benchmark_names():
        raise ValueError(f"there is no benchmark {name!r}; there are: {', '.join(benchmark_names())}")
    return importlib.import_module(f"{__name__}.{name}")

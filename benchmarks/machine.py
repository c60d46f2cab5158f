"""What the numbers were measured on, without names of hosts or paths."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil
import torch

PACKAGES = ("numpy", "xarray", "zarr", "numcodecs", "netCDF4", "dask", "prefect", "torch", "pillow", "rasterio")


def describe_machine() -> str:
    """Return processor, vector instructions, cores, memory, operating system and Python in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}"
    processor = f"{_processor()} with {torch.backends.cpu.get_cpu_capability()}"
    return f"{processor}, {cores} cores, {memory:.0f} GiB memory, {system}, Python {platform.python_version()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def software() -> dict[str, str]:
    """Return the versions of the packages that the numbers depend on."""
    return {package: metadata.version(package) for package in PACKAGES}

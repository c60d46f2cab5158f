"""Run benchmarks and renew their page.

python -m benchmarks                       all of them, except those that run on request only
python -m benchmarks window_read           some
python -m benchmarks fire_skill            one that takes hours, so on request only (its module says
                                           `ON_REQUEST = True`); it keeps its work folder and resumes there
python -m benchmarks --quick               tiny sizes, to see that they work; records nothing
python -m benchmarks --page                renew docs/benchmarks.md from the recorded figures
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figure import RESULTS, Figure, load_figures
from benchmarks.process import REPOSITORY
from benchmarks.report import table, write_page
from benchmarks.suite import benchmark_names, load_benchmark, runs_on_request


def main() -> int:
    """Measure what the command line names; return 1 when a benchmark could not be run, 2 for bad input."""
    options = _options()
    try:
        modules = {name: load_benchmark(name) for name in options.names or benchmark_names(on_request=False)}
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.page:
        write_page(load_figures())
        return 0
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"note: the machine is busy (load {load:.1f}); measure when nothing else runs", flush=True)
    failed = 0
    for name, module in modules.items():
        folder = f"{name}-quick" if options.quick else name
        bench = Bench(name, options.work.absolute() / folder, options.quick)
        resumes = runs_on_request(module) and not options.quick
        begin = time.monotonic()
        try:
            figures = _in_folder(bench, module.run, clean=not resumes, keep=options.keep or resumes)
        except (RuntimeError, ValueError) as error:
            print(f"{name} failed: {error}", file=sys.stderr)
            failed = 1
            continue
        for figure in figures:
            figure.save(options.work / "quick-results" if options.quick else RESULTS)
        print(f"{name} took {time.monotonic() - begin:.0f} s\n\n{table(figures)}", flush=True)
    if not options.quick:
        write_page(load_figures())
    return failed


def _in_folder(bench: Bench, run: Callable[[Bench], list[Figure]], *, clean: bool, keep: bool) -> list[Figure]:
    if clean:
        shutil.rmtree(bench.work, ignore_errors=True)
    bench.work.mkdir(parents=True, exist_ok=True)
    try:
        return run(bench)
    finally:
        if not keep:
            shutil.rmtree(bench.work)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(benchmark_names())}; all when absent")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "bench-work", help="folder for data and outputs")
    parser.add_argument("--keep", action="store_true", help="keep generated data and outputs in the work folder")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; figures go to WORK/quick-results")
    parser.add_argument("--page", action="store_true", help="measure nothing, only renew the page")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

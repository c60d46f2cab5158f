"""Put faults into the modules of judges.toml, one at a time, and see whether their tests notice.

python -m tests.mutants                  every fault of every module; hours. A run that was killed goes on where it was
python -m tests.mutants --most 20        the first 20 faults of each module, in an order that is always the same
python -m tests.mutants scores pooling   some modules
python -m tests.mutants --report         run nothing, only tell

Results are kept until the module changes; where only its tests changed, survivors are run again. Ends with 1 where a
survivor is not explained in survivors.toml, or tests fail without a fault.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.mutants.judges import HERE, Judged, load_judges, load_survivors
from tests.mutants.session import Session, run_module
from tests.mutants.tally import tally

WORK = Path("bench-work") / "mutants"


def main() -> int:
    """Run sessions and tell."""
    options = _options()
    judges = load_judges(options.lists / "judges.toml")
    chosen = [judges[name] for name in options.names or judges]
    failures = [] if options.report else _run(chosen, options)
    sessions = {judged: Session(judged, options.work) for judged in chosen}
    found = tally(
        {judged: (len(s.faults(None)), list(s.rows(options.most))) for judged, s in sessions.items()},
        load_survivors(options.lists / "survivors.toml"),
    )
    print(found.text())
    if options.json:
        options.json.write_text(json.dumps(found.json(), indent=1))
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(bool(found.unexplained or failures))


def _run(chosen: list[Judged], options: argparse.Namespace) -> list[str]:
    """Run the sessions; return what went wrong."""
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[threads] = "1"  # a process with more threads must not be forked
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context, max_tasks_per_child=1) as pool:
        jobs = [pool.submit(run_module, judged, options.work, options.most, options.afresh) for judged in chosen]
        return [str(error) for job in jobs if (error := job.exception())]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="modules, by their names in judges.toml")
    parser.add_argument("--most", type=int, help="faults of each module; all when absent")
    parser.add_argument("--processes", type=int, default=2, help="modules at a time")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the sessions")
    parser.add_argument("--lists", type=Path, default=HERE, help="folder of judges.toml and survivors.toml")
    parser.add_argument("--afresh", action="store_true", help="forget all earlier results")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--json", type=Path, help="write the counts there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

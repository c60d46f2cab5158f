"""Kill runs of the pipelines at one file operation after another, and see whether the next run ends as if nothing was.

python -m tests.kills                       40 kills at every place; hours. A run that was stopped goes on where it was
python -m tests.kills --most 400            more of them, where a stage has so many operations
python -m tests.kills wildfire --stage fire_cache --engine inline --process main --at 17      one of them, again
python -m tests.kills --report              run nothing, only tell

Results are kept until product code changes. Ends with 1 where a kill was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tasks.units import die_with_parent
from tests import warm
from tests.kills.record import Found, Kills, load, tally, text
from tests.kills.roots import PROFILES
from tests.kills.trap import PROCESSES
from tests.kills.trials import places

WORK = Path("bench-work") / "kills"
ENGINES = ("inline", "prefect")
ROUNDS = (3, 12, 40)
"""Kills at every place before any place gets more."""


def main() -> int:
    """Kill and tell."""
    options = _options()
    if not options.report:
        with prefect_server(options.work.absolute()) if "prefect" in options.engine else contextlib.nullcontext():
            _kill(options)
    records = [record for name in options.names or PROFILES if (record := load(options.work / f"{name}.json"))]
    counts = tally(records)
    print(text(counts))
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1))
    return int(bool(counts["lost"]))


def _kill(options: argparse.Namespace) -> None:
    every = [Kills(name, options.work.absolute(), _say) for name in options.names or PROFILES]
    chosen = [
        (kills, place)
        for kills in every
        for place in places(kills.calm, options.engine)
        if place.process in options.process and (options.stage is None or options.stage == place.stage)
    ]
    if options.at:
        for kills, place in chosen:
            kills.kill(kills.record.at(place) or Found(place=place, operations=options.at), options.at)
        return
    for most in sorted({min(options.most, most) for most in (*ROUNDS, options.most)}):
        for kills, place in chosen:
            kills.run(place, most)


@contextlib.contextmanager
def prefect_server(work: Path) -> Iterator[None]:
    """Run a Prefect server for all runs while the block runs, and let processes start with Prefect imported."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "PREFECT_HOME": str(work / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "millrace",
        "DO_NOT_TRACK": "1",
        warm.PRELOAD: "prefect,flows.deployments",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    work.mkdir(parents=True, exist_ok=True)
    with (work / "prefect.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=partial(die_with_parent, os.getpid())
        )
    try:
        deadline = time.monotonic() + 300
        while not _answers(f"{os.environ['PREFECT_API_URL']}/health"):
            assert server.poll() is None, f"the Prefect server ended; see {work / 'prefect.log'}"
            assert time.monotonic() < deadline, "the Prefect server does not answer"
            time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def _say(text: str) -> None:
    print(text, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="PIPELINE", help=f"of {', '.join(PROFILES)}; all when absent")
    parser.add_argument("--most", type=int, default=40, help="kills at every place")
    parser.add_argument("--stage", help="one stage, by the title that runs print")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--process", nargs="+", choices=PROCESSES, default=PROCESSES)
    parser.add_argument("--at", type=int, help="one operation")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of roots and results")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--json", type=Path, help="write the counts there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

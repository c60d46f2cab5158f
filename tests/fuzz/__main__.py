"""Give every reader of foreign bytes files that nobody would write, and see whether it reads or refuses them.

python -m tests.fuzz --seconds 600             all readers in turn; goes on where the last run ended
python -m tests.fuzz --cases 10000             up to so many cases of each
python -m tests.fuzz --reader png jpeg         some readers
python -m tests.fuzz --reader png --at 1234    one case, again: what comes of it, and its files in WORK/png-1234
python -m tests.fuzz --report                  run nothing, only tell

What was found with a reader is kept until its code changes. Ends with 1 where a case went wrong.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path

from tests.fuzz.campaign import Campaign, sandbox, tally
from tests.fuzz.case import run_case
from tests.fuzz.readers import MODULES, reader

WORK = Path("bench-work") / "fuzz"
TURN = 30.0
"""Seconds for which one reader is tried before the next."""


UNFINISHED = 3
"""Status of a turn after which there are more cases to run."""


def main() -> int:
    """Run cases and tell."""
    options = _options()
    work = options.work.absolute()
    if options.at is not None:
        return max(_show(name, options.at, work) for name in options.reader)
    if not options.report:
        _run(options, work)
    campaign = Campaign(work, print)
    known = [name for name in options.reader if (work / f"{name}.json").exists()]
    counts = tally([found for name in known if (found := campaign.found(reader(name))).next])
    print(_text(counts))
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1))
    return int(bool(counts["failures"]))


def _run(options: argparse.Namespace, work: Path) -> None:
    end = time.monotonic() + options.seconds
    waiting = list(options.reader)
    while waiting and time.monotonic() < end:
        name = waiting.pop(0)
        turn = multiprocessing.get_context("fork").Process(
            target=_turn, args=(name, work, options.cases, min(TURN, end - time.monotonic()))
        )
        turn.start()
        turn.join()
        if turn.exitcode == UNFINISHED:
            waiting.append(name)


def _turn(name: str, work: Path, cases: int, seconds: float) -> None:
    """Run one reader in a process that has the libraries of no other; those of many do not go together when forked."""
    campaign = Campaign(work, lambda text: print(text, flush=True))
    before = campaign.found(one := reader(name))
    found = campaign.run(one, cases, seconds)
    told = f"{found.cases} cases, {found.failures} faults, {found.seconds:.0f} s"
    print(f"{name}: {told} (+{found.cases - before.cases})", flush=True)
    sys.exit(UNFINISHED if found.next < cases else 0)


def _show(name: str, number: int, work: Path) -> int:
    """Run one case and keep its files."""
    one = reader(name)
    folder = work / f"{name}-{number}"
    for file, data in one.case(number).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    with sandbox() as place:
        verdict = run_case(one, number, place)
    print(f"{name} {number}: {verdict.outcome} {verdict.what} ({verdict.seconds:.2f} s); files in {folder}")
    print(verdict.trace)
    return int(verdict.outcome == "fault")


def _text(counts: dict) -> str:
    lines = [f"{'reader':16} {'cases':>9} {'results':>9} {'sentences':>9} {'failures':>8} {'slowest':>8}"]
    lines += [
        f"{row['reader']:16} {row['cases']:9} {row['results']:9} {row['sentences']:9} {row['failures']:8} "
        f"{row['slowest']:6.1f} s"
        for row in counts["readers"]
    ]
    lines.append(f"{counts['cases']} cases, of which {counts['failures']} went wrong")
    for row in counts["readers"]:
        for where, fault in row["faults"].items():
            again = f"python -m tests.fuzz --reader {row['reader']} --at {fault['first']}"
            lines.append(f"\n{again}   # {where}, {fault['cases']} cases\n  {fault['what']}")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reader", nargs="+", choices=list(MODULES), default=list(MODULES), metavar="READER")
    parser.add_argument("--cases", type=int, default=2**62, help="cases of each reader, in all runs together")
    parser.add_argument("--seconds", type=float, default=2.0**40, help="how long, in all")
    parser.add_argument("--at", type=int, help="the number of one case")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of what was found")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--json", type=Path, help="write the counts there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

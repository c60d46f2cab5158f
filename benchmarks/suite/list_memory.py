"""Memory and speed of reading lists.

A list in the shape of CC12M (URL, tab, caption of 4 to 30 words) is read in mode `metadata`: the order of columns found
by vote, every row checked, rows of one URL gathered however far apart they are, a list written per shard of 10 000
images. Of a hundred rows, five are about an image that is elsewhere in the list too, one repeats a row, and one is
broken. The peak is the resident memory of the process, sampled every 20 ms. CPU-seconds are those of the stage, its
imports included; that the file is hashed before is not in them.
"""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, interleave, rounded
from benchmarks.figure import Figure
from benchmarks.process import run_weighed

SHORT = 250_000
LONG = 2_000_000
WORDS = 3000
HOSTS = 20_000


def run(bench: Bench) -> list[Figure]:
    """Measure a long list against a short one."""
    sizes = {"short": SHORT // 100, "long": LONG // 100} if bench.quick else {"short": SHORT, "long": LONG}
    bench.say(f"writing lists of {sizes['short']} and {sizes['long']} rows")
    paths = {name: bench.work / f"{name}.tsv" for name in sizes}
    for name, rows in sizes.items():
        _write_list(paths[name], rows)
    bench.say("reading both in turn")
    rounds = interleave(
        1 if bench.quick else 3,
        {"short": lambda: _read(bench.work, paths["short"]), "long": lambda: _read(bench.work, paths["long"])},
    )
    for name, rows in sizes.items():
        _check(rounds[name], rows)
    peaks = {name: [peak for _, peak in rounds[name]] for name in sizes}
    low, high = (statistics.median(peaks[name]) for name in ("short", "long"))
    cpu = [answer["stage"]["cpu"] for answer, _ in rounds["long"]]
    detail = {
        "rows": sizes,
        "peak_bytes": peaks,
        "cpu_seconds": cpu,
        "megabytes": {name: round(paths[name].stat().st_size / 1e6) for name in sizes},
        "counts": rounds["long"][0][0]["counts"],
    }
    return [
        bench.figure(
            "list_memory_growth",
            what=f"Peak memory of reading a list, {sizes['long']:,} rows against {sizes['short']:,}",
            value=rounded(high / low, 4),
            unit="x",
            aim="<= 1.15",
            peer=f"itself, {sizes['short']:,} rows",
            peer_value=rounded(low / 1e6),
            peer_unit="MB",
            notes=(f"{low / 1e6:.0f} MB for the short list, {high / 1e6:.0f} MB for the long one.",),
            detail=detail,
        ),
        bench.figure(
            "list_rows_per_cpu_second",
            what=f"Rows of a list read, checked and gathered by image, of {sizes['long']:,}",
            value=rounded(sizes["long"] / statistics.median(cpu)),
            unit="rows per CPU-second",
            notes=(f"At this rate, the 12.4 million rows of CC12M take {_minutes(sizes['long'], cpu)} CPU-minutes.",),
            detail=detail,
        ),
    ]


def _minutes(rows: int, cpu: list[float]) -> float:
    return rounded(12.4e6 * statistics.median(cpu) / rows / 60, 2)


def _read(work: Path, path: Path) -> tuple[Any, int]:
    root = work / "assets"
    result = run_weighed("read_lists", lists=str(path), root=str(root))
    shutil.rmtree(root)
    return result


def _check(rounds: list[tuple[Any, int]], rows: int) -> None:
    """Refuse numbers of a run that lost rows."""
    for counts in (answer["counts"] for answer, _ in rounds):
        lost = {name: n for name, n in counts.items() if name.startswith("dropped")}
        wanted = {"dropped, bad_url": rows // 100, "dropped, duplicate_row": rows // 100}
        if lost != wanted or counts["rows"] != rows - sum(wanted.values()) or counts["input_rows"] != rows:
            raise RuntimeError(f"reading {rows} rows gave {counts}")


def _write_list(path: Path, rows: int) -> None:
    with path.open("w") as file:
        file.writelines(_lines(random.Random(rows), rows))


def _lines(rng: random.Random, rows: int) -> Iterator[str]:
    """Yield lines; number 7 of a hundred repeats one, five others tell more of an image, number 50 is broken."""
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(WORDS)]
    plain = [0]
    kept = ""
    for number in range(rows):
        place = number % 100
        caption = " ".join(rng.choices(words, k=rng.randint(4, 30)))
        if place == 7:
            yield kept
        elif place == 50:
            yield f"no address\t{caption}\n"
        elif place in (20, 40, 60, 80, 99):
            yield f"{_url(rng.choice(plain))}\t{number} {caption}\n"
        else:
            line = f"{_url(number)}\t{caption}\n"
            kept = line if place == 0 else kept
            if place % 10 == 5:
                plain.append(number)
            yield line


def _url(number: int) -> str:
    """Return a URL of CC12M's length; equal numbers give equal URLs."""
    return (
        f"https://images.site{number * 7919 % HOSTS}.example/media/{number:09d}/{number * 2654435761 % 2**32:08x}.jpg"
    )

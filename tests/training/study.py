"""A study whose trials note that they begin and then take their time; arguments: sweep, database, log, seconds."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from tasks.training.sweep import read_sweep, run_study


def main(sweep: str, database: str, log: str, seconds: str) -> None:
    """Run the study to its end and tell its best value and how many trials it has."""

    def trial(parameters: dict[str, Any]) -> dict[str, float]:
        with Path(log).open("a") as file:
            print(sorted(parameters.items()), file=file)
        time.sleep(float(seconds))
        return {"f1": float(parameters["a"])}

    result = run_study(read_sweep(Path(sweep)), trial, Path(database))
    print(result.value, result.finished)


if __name__ == "__main__":
    main(*sys.argv[1:])

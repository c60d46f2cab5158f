"""Tables on a console: nothing is wrapped where output is piped, and no identifier is broken anywhere."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

ENDLESS = 100_000  # columns of a file or a pipe
LONGEST_WORD = 40  # longer ones fold, e.g. paths and lists of a configuration


def output_console() -> Console:
    """Return the console of standard output."""
    return Console(width=None if sys.stdout.isatty() else ENDLESS)


def table(*columns: str) -> Table:
    """Return a table whose last column folds between words; the others stay in one piece."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns[:-1]:
        made.add_column(column, no_wrap=True)
    made.add_column(columns[-1], overflow="fold")
    return made


def print_table(console: Console, made: Table) -> None:
    """Print a table as wide as the console, or wider where a word would have to be broken: lines then run on."""
    options = console.options.update(max_width=ENDLESS)
    last = made.columns[-1]
    cells = [Measurement.get(console, options, cell) for cell in (last.header, *last.cells)]
    widest = Measurement.get(console, options, made).maximum
    least = widest - max(cell.maximum for cell in cells) + min(LONGEST_WORD, max(cell.minimum for cell in cells))
    made.width = min(widest, max(console.width, least))
    console.print(made, highlight=False, crop=False)

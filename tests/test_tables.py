"""Tables and plans on narrow terminals, and in pipes."""

from __future__ import annotations

import io
import re

from rich.console import Console

from flows.commands.tables import ENDLESS, print_table, table
from tests.command import millrace

KEY = "era5_windows/94f2e66e1fd4c1a2b3c4d5e6"
REASON = "config recipe.training.learning_rates.temporal 0.001 -> 0.002; input era5_windows changed"


def printed(width: int) -> list[str]:
    rows = table("stage", "learning_rates.temporal", "asset", "why")
    rows.add_row("era5_training_set", "0.001", KEY, REASON)
    output = io.StringIO()
    print_table(Console(file=output, width=width), rows)
    return output.getvalue().splitlines()


def test_nothing_is_wrapped_where_there_is_room():
    header, row = printed(ENDLESS)
    assert row.rstrip() == f"era5_training_set  0.001                    {KEY}  {REASON}"
    assert header.split() == ["stage", "learning_rates.temporal", "asset", "why"]


def test_a_narrow_terminal_breaks_no_word():
    for width in (30, 80, 120):
        words = " ".join(printed(width)).split()
        assert {"learning_rates.temporal", "era5_training_set", KEY, *REASON.split()} <= set(words)


def test_a_pipe_has_a_line_per_stage_however_narrow_the_terminal(tmp_path):
    plan = millrace("plan", "weather", root=tmp_path, COLUMNS="40").stdout
    assert all(re.match(r"(RUN|HIT) +\S", line) for line in plan.splitlines()[1:])

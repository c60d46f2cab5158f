"""The page of input shapes: made from the markers of tests, and up to date."""

from __future__ import annotations

import pytest

from tests.inputs import OUTCOMES, PAGE, Shape, line, page, shapes_of


def test_the_page_of_inputs_is_up_to_date(request: pytest.FixtureRequest) -> None:
    """In a run of all tests the page is compared whole, in others as far as its tests were collected."""
    found, text = shapes_of(request.session.items), PAGE.read_text()
    assert {shape.outcome for shape in found} <= OUTCOMES.keys()
    assert [line(shape) for shape in found if line(shape) not in text] == [], "run python -m tests.inputs"
    options = request.config.option
    everything = request.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if everything and not (options.keyword or options.deselect or options.ignore or getattr(options, "lf", False)):
        assert text == page(found), "run python -m tests.inputs"


def test_the_page_has_a_table_for_each_format_and_counts() -> None:
    text = page([
        Shape("wind CSV", "refused", "a | b", "tests/b.py"), Shape("NetCDF", "read", "two  words", "tests/a.py"),
        Shape("wind CSV", "read", "z", "tests/b.py"),
    ])  # fmt: skip
    assert text.index("## NetCDF") < text.index("## wind CSV") < text.index("| z | read |") < text.index("| a \\| b |")
    assert "| [wind CSV](#wind-csv) | 1 | 0 | 1 |" in text
    assert "| two words | read | `tests/a.py` |" in text

"""Winds as people have them: every value is right, or not measured and counted, or refused by its line."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from configs.fire_data import Decoding
from storage.assets import AssetStore
from tasks.fire.wind import Wind, read_wind
from tasks.progress import Silent
from tests.fire.archives import Fire, records_of, write_archive

Shape = pytest.mark.input_shape
HEADER = "Scenario,datetime,WS,WD,FireScenario"


def shape(words: str, outcome: str, format: str = "wind CSV"):
    return Shape(format=format, shape=words, outcome=outcome)


def read(tmp_path: Path, content: str | bytes, steps: int = 4) -> Wind:
    path = tmp_path / "Weather1.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_wind(path, steps, Decoding())


def plain(rows: list[tuple[str, str]]) -> str:
    return "\n".join([HEADER, *(f"x,2024-01-01,{ws},{wd},1.0" for ws, wd in rows)]) + "\n"


def vectors(rows: list[tuple[float, float]]) -> np.ndarray:
    """Speed, sine and cosine, by numpy alone."""
    speed, direction = np.array(rows, np.float64).T
    return np.stack([speed, np.sin(np.radians(direction)), np.cos(np.radians(direction))], axis=1)


THREE = [(10.5, 232.0), (12.0, 0.0), (3.25, 359.5)]
TEXT = plain([("10.5", "232"), ("12", "360"), ("3.25", "359.5")])


def turned(delimiter: str, decimal: str = ".") -> str:
    """The same table by the csv module, with another delimiter."""
    out = StringIO()
    rows = [row if i == 0 else [*row[:2], *(c.replace(".", decimal) for c in row[2:])]
            for i, row in enumerate(csv.reader(StringIO(TEXT)))]  # fmt: skip
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(TEXT, marks=shape("plain", "read")),
        pytest.param(TEXT.replace("\n", "\r\n"), marks=shape("line ends CR LF", "read")),
        pytest.param(TEXT.replace("\n", "\r"), marks=shape("line ends CR", "read")),
        pytest.param(b"\xef\xbb\xbf" + TEXT.encode(), marks=shape("UTF-8 with a byte order mark", "read")),
        pytest.param(TEXT.encode("utf-16"), marks=shape("UTF-16 with a byte order mark", "read")),
        pytest.param(turned(";"), marks=shape("semicolons", "read")),
        pytest.param(turned("\t"), marks=shape("tabs", "read")),
        pytest.param("sep=;\n" + turned(";"), marks=shape("sep=; in the first line", "read")),
        pytest.param(turned(";", ","), marks=shape("semicolons and decimal commas", "read")),
        pytest.param(turned(",", ","), marks=shape("decimal commas in quotes", "read")),
        pytest.param(TEXT + ",,,,\n,,,,\n", marks=shape("rows of commas alone at the end", "read")),
        pytest.param(TEXT.replace("\n", "\n\n"), marks=shape("blank lines", "read")),
        pytest.param(TEXT.replace("10.5", "+1.05e1"), marks=shape("numbers with an exponent", "read")),
        pytest.param(TEXT.replace("\n", ",\n"), marks=shape("a comma at the end of every line", "read")),
    ],
)
def test_the_same_wind_however_it_is_written(tmp_path, content):
    wind = read(tmp_path, content)
    assert wind.valid[:3].all()
    np.testing.assert_allclose(wind.vectors[:3], vectors(THREE), atol=1e-6)


@pytest.mark.parametrize(
    "direction", ["999", "990", "-999", "-9999", "-99", "-1", "361", "32767", "", "NA", "VRB", "nan", "-inf"]
)
def test_directions_that_no_wind_has_are_not_measured(tmp_path, direction):
    wind = read(tmp_path, plain([("10", "90"), ("11", direction), ("12", "270")]))
    assert wind.valid.tolist() == [True, False, True, False]
    assert not wind.vectors[1].any()
    np.testing.assert_allclose(wind.vectors[[0, 2]], vectors([(10, 90), (12, 270)]), atol=1e-6)
    assert wind.unmeasured == [f"line 3: WS 11, WD {direction or 'empty'}"]


@pytest.mark.parametrize("speed", ["-1", "-9999", "999.9", "9999", "999", "327.67", "1e400", "null", "M"])
def test_speeds_that_no_wind_has_are_not_measured(tmp_path, speed):
    wind = read(tmp_path, plain([("10", "90"), (speed, "180"), ("12", "270")]))
    assert wind.valid.tolist() == [True, False, True, False]
    assert wind.unmeasured == [f"line 3: WS {speed}, WD 180"]


def test_calms_north_and_gales_are_measured(tmp_path):
    wind = read(tmp_path, plain([("0", "0"), ("180", "360"), ("99", "0.5")]))
    assert wind.valid.tolist() == [True, True, True, False]
    assert wind.unmeasured == []


@shape("a row with fewer cells than the header", "skipped")
def test_a_row_that_lacks_a_cell_is_not_measured_for_nobody_knows_which(tmp_path):
    wind = read(tmp_path, TEXT.replace("x,2024-01-01,12,360,1.0", "x,12,360,1.0"))
    assert wind.valid.tolist() == [True, False, True, False]


@shape("a row of commas alone within the table", "skipped")
def test_a_row_without_values_moves_no_other(tmp_path):
    wind = read(tmp_path, TEXT.replace("x,2024-01-01,12,360,1.0", ",,,,"))
    assert wind.valid.tolist() == [True, False, True, False]


MISREAD = {
    "units in cells": (TEXT.replace("10.5,", "10 km/h,"), "has '10 km/h' for WS in line 2"),
    "points of the compass": (TEXT.replace(",232,", ",SW,"), "has 'SW' for WD in line 2"),
    "underscores in numbers": (TEXT.replace(",12,", ",1_2,"), "has '1_2' for WS in line 3"),
    "points and commas in a number": (TEXT.replace(",12,", ',"1.234,5",'), r"has '1\.234,5' for WS in line 3"),
    "decimal commas without quotes": (
        TEXT.replace("10.5", "10,5"),
        r"more cells in line 2 than in its header \(x,2024",
    ),
    "a column twice": (TEXT.replace("FireScenario", "WS"), "has the column WS twice"),
    "no header": (TEXT.partition("\n")[2], "has no column WS and WD"),
    "a line of units below the header": (
        plain([("km/h", "deg"), ("1", "2"), ("1", "2"), ("1", "2")]),
        "has 'km/h' for WS in line 2",
    ),
    "no rows": ("", "has no rows"),
    "UTF-16 without a mark": (TEXT.encode("utf-16")[2:], "NUL characters, as UTF-16 without"),
    "Latin-1": (TEXT.replace("x,", "Zürich,").encode("latin-1"), r"is no text in UTF-8 \(line 2\)"),
    "an open quote": (TEXT.replace("x,2024-01-01,12", '"x,2024-01-01,12'), "line 3 opens a quote that is never closed"),
}


@pytest.mark.parametrize("words", [pytest.param(words, marks=shape(words, "refused")) for words in MISREAD])
def test_what_would_be_misread_is_refused_by_its_line(tmp_path, words):
    content, sentence = MISREAD[words]
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path, content)


# -- archives -----------------------------------------------------------------------------------------------------


class Told(Silent):
    """Keeps what people are told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


FIRES = [
    Fire(n, (5, 45, 12 * n, 12 * n + 36), (25, 12 * n + 18), 4, [(10, 90), (11, 100), (12, 110)]) for n in (1, 2, 3)
]


@pytest.fixture
def told(monkeypatch) -> list[str]:
    reporter = Told()
    monkeypatch.setattr("tests.fire.archives.Silent", lambda: reporter)
    return reporter.messages


def weather(root: Path, number: int, content: str | bytes) -> None:
    path = root / f"landscape/Weathers/Weather{number}.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@shape("codes for missing values", "skipped")
def test_rows_that_are_not_measured_and_fires_without_wind_are_counted_and_named(store: AssetStore, tmp_path, told):
    write_archive(tmp_path / "a", FIRES)
    weather(tmp_path / "a", 1, plain([("10", "90"), ("999.9", "999"), ("12", "110")]))
    weather(tmp_path / "a", 2, plain([("10", "VRB"), ("11", "VRB"), ("12", "VRB")]))
    weather(tmp_path / "a", 3, turned(";"))
    counts = records_of(store, tmp_path / "a").manifest.counts
    assert (counts["wind_rows_not_measured"], counts["fires_without_wind"], counts["fires"]) == (4, 1, 3)
    said = "\n".join(told)
    assert "4 rows of wind are not measured" in said
    assert "landscape/Weathers/Weather1.csv line 3: WS 999.9, WD 999" in said
    assert "1 of 3 fires have no usable wind: sequence_002" in said
    assert "read with semicolons between its columns: sequence_003" in said


@shape("directions in radians", "read")
def test_directions_that_seem_to_be_radians_are_told(store, tmp_path, told):
    write_archive(tmp_path / "a", FIRES)
    for number in (1, 2, 3):
        weather(tmp_path / "a", number, plain([("10", "1.57"), ("11", "3.1"), ("12", f"{number + 3}.28")]))
    records_of(store, tmp_path / "a")
    assert "no wind comes from more than 6.28 degrees: if directions are radians, write degrees" in told


def history(root: Path, change) -> None:
    path = root / "landscape/WeatherHistory.csv"
    path.write_bytes(change(path.read_text().splitlines()))


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


@shape("a header line", "refused", "WeatherHistory.csv")
@pytest.mark.parametrize(
    ("header", "first", "on_broken"),
    [("weather_file", 1, "error"), ("Weathers/", 1, "skip"), ("0", 2, "error"), ("path,fire", 2, "skip")],
)
def test_a_header_in_the_history_shifts_nobody(store, tmp_path, header, first, on_broken):
    write_archive(tmp_path / "a", FIRES[first - 1 :])
    history(tmp_path / "a", lambda rows: lines(header, *rows[first - 1 :]))
    with pytest.raises(ValueError, match=r"WeatherHistory\.csv: line 1 names no weather file, .*line i names that of"):
        records_of(store, tmp_path / "a", on_broken=on_broken)
    assert store.assets("fire_records") == []


@shape("a blank first line that moves all others", "refused", "WeatherHistory.csv")
def test_a_blank_line_in_the_history_shifts_nobody(store, tmp_path):
    write_archive(tmp_path / "a", FIRES)
    history(tmp_path / "a", lambda rows: lines("", *rows))
    with pytest.raises(
        ValueError, match="has 4 lines, but the last fire is number 3, and line 1, that of fire 1, is blank"
    ):
        records_of(store, tmp_path / "a", on_broken="skip")


@shape("more lines than fires", "read", "WeatherHistory.csv")
def test_a_longer_history_is_named(store, tmp_path, told):
    write_archive(tmp_path / "a", FIRES)
    history(tmp_path / "a", lambda rows: lines(*rows, rows[0], rows[1]))
    assert records_of(store, tmp_path / "a").manifest.counts["fires"] == 3
    assert any("has 5 lines, but the last fire is number 3" in message for message in told)


@shape("fewer lines than fires", "refused", "WeatherHistory.csv")
def test_a_shorter_history_is_named(store, tmp_path, told):
    write_archive(tmp_path / "a", FIRES)
    history(tmp_path / "a", lambda rows: lines(*rows[:2]))
    with pytest.raises(ValueError, match="sequence_003 has no line 3"):
        records_of(store, tmp_path / "a")
    assert records_of(store, tmp_path / "a", on_broken="skip").manifest.counts["fires"] == 2
    assert any("has 2 lines, but the last fire is number 3" in message for message in told)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda rows: "\n".join(rows).encode("utf-16"), marks=shape("UTF-16", "read", "WeatherHistory.csv")
        ),
        pytest.param(lambda rows: "\r".join(rows).encode(), marks=shape("line ends CR", "read", "WeatherHistory.csv")),
        pytest.param(
            lambda rows: lines(*(f'"{row}"' for row in rows)), marks=shape("quoted", "read", "WeatherHistory.csv")
        ),
    ],
)
def test_a_history_however_it_is_written(store, tmp_path, change):
    write_archive(tmp_path / "a", FIRES)
    calm = records_of(store, tmp_path / "a")
    history(tmp_path / "a", change)
    again = records_of(store, tmp_path / "a")
    assert again.key != calm.key
    assert again.fingerprint == calm.fingerprint

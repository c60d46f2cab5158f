"""Caption files as people have them: every text is read, or the file is refused by its line."""

from __future__ import annotations

import csv
from datetime import date
from io import StringIO
from pathlib import Path

import pytest

from configs.weather_lm import CaptionFiles
from configs.weather_pipeline import WeatherConfig
from flows.weather import weather
from tasks.captions.gather import find_captions
from tasks.captions.read import Columns, read_captions
from tasks.captions.regions import load_regions
from tasks.progress import Silent
from tasks.session import Session

ROWS = [
    ["date", "location", "event description"],
    ["2024-01-01", "Tokyo", "high 23 °C, rain"],
    ["2024-01-02", "Kyoto", 'they said "sun"'],
    ["2024-01-03", "Osaka", "snow;\nthen sun"],
]
EXPECTED = [
    (date(2024, 1, 1), "Tokyo", "high 23 °C, rain"),
    (date(2024, 1, 2), "Kyoto", 'they said "sun"'),
    (date(2024, 1, 3), "Osaka", "snow; then sun"),
]


def shape(words: str, outcome: str, format: str = "captions CSV"):
    return pytest.mark.input_shape(format=format, shape=words, outcome=outcome)


def table(delimiter: str = ",", ends: str = "\r\n", rows: list[list[str]] = ROWS) -> str:
    out = StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=ends, quoting=csv.QUOTE_ALL).writerows(rows)
    return out.getvalue()


def write(tmp_path: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(table(), marks=shape("plain", "read")),
        pytest.param(table(ends="\n"), marks=shape("line ends LF", "read")),
        pytest.param(table(ends="\r"), marks=shape("line ends CR", "read")),
        pytest.param(table().rstrip(), marks=shape("no line end at the end", "read")),
        pytest.param(b"\xef\xbb\xbf" + table().encode(), marks=shape("UTF-8 with a byte order mark", "read")),
        pytest.param(table().encode("utf-16"), marks=shape("UTF-16 with a byte order mark", "read")),
        pytest.param(b"\xfe\xff" + table().encode("utf-16-be"), marks=shape("UTF-16, big end first", "read")),
        pytest.param("\n , ,\n" + table(), marks=shape("blank lines before the header", "read")),
    ],
)
def test_the_same_captions_however_they_are_written(tmp_path, content):
    found = read_captions([write(tmp_path, content)])
    assert [(c.date, c.region, c.text) for c in found.captions] == EXPECTED
    assert (found.unusable, found.report()) == ({}, [])


@pytest.mark.parametrize(
    ("content", "name"),
    [
        pytest.param(table(";"), "semicolons", marks=shape("semicolons", "read")),
        pytest.param(table("\t"), "tabs", marks=shape("tabs", "read")),
        pytest.param(table("|"), "bars", marks=shape("bars", "read")),
        pytest.param("sep=;\r\n" + table(";"), "semicolons", marks=shape("sep=; in the first line", "read")),
    ],
)
def test_what_parts_columns_is_found_and_told(tmp_path, content, name):
    found = read_captions([path := write(tmp_path, content)])
    assert [(c.date, c.region, c.text) for c in found.captions] == EXPECTED
    assert found.report() == [f"{path}: columns are parted by {name}"]


def test_columns_of_ones_own_decide_what_parts_them(tmp_path):
    columns = Columns(date=("When, UTC",), text=("what",))
    found = read_captions([write(tmp_path, "when, utc;what\n2024-01-01;rain, sun\n")], columns)
    assert [c.text for c in found.captions] == ["rain, sun"]


@shape("a field of more than 131,072 characters", "read")
def test_a_long_text_is_whole(tmp_path):
    text = "rain " * 60_000
    found = read_captions([write(tmp_path, f"date,text\n2024-01-01,{text}\n2024-01-02,sun\n")])
    assert [len(c.text) for c in found.captions] == [len(text) - 1, 3]


OPEN = 'date,text\n2024-01-01,"rain\nfell"\n2024-01-02,"sun\n2024-01-03,snow\n'
BROKEN = {
    "a quote open to the end": (OPEN, "line 4 opens a quote that is never closed"),
    "a quote open to the end, CR LF": (OPEN.replace("\n", "\r\n"), "line 4 opens a quote that is never closed"),
    "a quote open to the end, CR": (OPEN.replace("\n", "\r"), "line 4 opens a quote that is never closed"),
    "a quote open to an end without line end": (OPEN.rstrip(), "line 4 opens a quote that is never closed"),
    "a quote open within its row": (
        'date,text,region\n2024-01-01,"rain\nfell","Tokyo\n2024-01-02,sun,Kyoto\n',
        "line 3 opens a quote that is never closed",
    ),
    "a quote alone in the last line": ('date,text\n2024-01-01,rain\n2024-01-02,"', "line 3 opens a quote"),
    "a quote open to the next quote": (
        'date,text\n2024-01-01,"rain\n2024-01-02,"sun"\n2024-01-03,snow\n',
        "line 3, in a row that a quote in line 2 holds together, has text after a closing quote",
    ),
    "text after a closing quote": (
        'date,text\n2024-01-01,"rain" fell\n',
        "line 2 has text after a closing quote; write quotes in texts twice",
    ),
    "a column twice": ("date,text,Text\n2024-01-01,rain,sun\n", "has the column text twice; keep one"),
    "UTF-16 without a mark": (table().encode("utf-16-le"), "is no text in UTF-8|holds NUL characters, as UTF-16"),
    "NUL characters": (table().encode() + b"\0", "holds NUL characters"),
    "Latin-1": (table().encode("latin-1"), r"is no text in UTF-8 \(line 2\); save it in UTF-8"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0\0\xff", "is no text in UTF-8"),
    "nothing": (b"", "has no rows; give a CSV in UTF-8 whose header names a date and a text column"),
    "semicolons without a date": ("when;text\n2024-01-01;rain\n", "no date column: its header is 'when', 'text'"),
}


@pytest.mark.parametrize("words", [pytest.param(words, marks=shape(words, "refused")) for words in BROKEN])
def test_what_would_be_misread_is_refused_by_its_line(tmp_path, words):
    content, sentence = BROKEN[words]
    with pytest.raises(ValueError, match=rf"a\.csv .*({sentence})"):
        read_captions([write(tmp_path, content)])


@shape("rows of commas alone", "read")
def test_rows_of_commas_alone_are_no_rows(tmp_path):
    assert read_captions([write(tmp_path, "date,text\n,\n2024-01-01,rain\n,,\n")]).report() == []


BOXES = "region,north,west,south,east\nHome,50,7,47,11\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(BOXES, marks=shape("plain", "read", "regions CSV")),
        pytest.param(BOXES.replace(",", ";"), marks=shape("semicolons", "read", "regions CSV")),
        pytest.param(BOXES.encode("utf-16"), marks=shape("UTF-16", "read", "regions CSV")),
    ],
)
def test_boxes_however_they_are_written(tmp_path, content):
    assert load_regions(write(tmp_path, content)) == {"Home": (50.0, 7.0, 47.0, 11.0)}


NO_BOXES = {
    "a region twice": (BOXES + "Home,50,7,47,12\n", "a.csv:3 gives Home a second box"),
    "cells missing": (BOXES + "There,50,7,47\n", "a.csv:3 is not a region"),
    "NaN": (BOXES + "There,nan,7,47,9\n", "a.csv:3 is not a region"),
    "a column twice": (BOXES.replace("south", "north"), "column north twice"),
    "nothing": ("", "a.csv has no rows"),
}


@pytest.mark.parametrize("words", [pytest.param(w, marks=shape(w, "refused", "regions CSV")) for w in NO_BOXES])
def test_boxes_that_are_none_are_refused_by_their_line(tmp_path, words):
    content, sentence = NO_BOXES[words]
    with pytest.raises(ValueError, match=sentence):
        load_regions(write(tmp_path, content))


@shape("other files and broken links in a folder of captions", "skipped")
def test_what_is_no_caption_file_is_named(tmp_path):
    folder = tmp_path / "captions"
    folder.mkdir()
    used = write(folder, table())
    write(folder, table("\t"), "b.tsv")
    write(folder, "", ".c.tsv")
    (folder / "d.csv").symlink_to(tmp_path / "nowhere.csv")
    found = find_captions(CaptionFiles(kind="files", paths=(str(folder), str(used))))
    assert found == [used]
    assert dict(found.passed) == {folder / "b.tsv": "is no .csv file", folder / "d.csv": "is a link to nothing"}


@shape("a path that matches nothing", "refused")
def test_a_path_of_captions_that_matches_nothing_is_named_as_it_was_written(tmp_path, store):
    config = WeatherConfig.model_validate({"captions": {"source": {"kind": "files", "paths": ["nowhere"]}}})
    with (
        Session(store, Silent(), planning=True).active(),
        pytest.raises(ValueError, match=r"captions\.source\.paths: 'nowhere' matches no file"),
    ):
        weather(config)


@shape("an open quote although no narrator is configured", "refused")
def test_caption_files_are_checked_although_no_narrator_is_configured(tmp_path, store, monkeypatch):
    class CaptionsAreReadError(Exception):
        """Nothing beyond them is wanted here."""

    def stop(**arguments):
        raise CaptionsAreReadError

    monkeypatch.setattr("flows.weather.raw_files", lambda config, today: None)
    monkeypatch.setattr("flows.weather.era5_catalog", stop)
    files = write(tmp_path, "date,text\n2024-01-01,rain\n")
    config = WeatherConfig.model_validate({"captions": {"source": {"kind": "files", "paths": [str(files)]}}})
    assert config.narrators == {}
    with Session(store, Silent()).active(), pytest.raises(CaptionsAreReadError):
        weather(config)
    (asset,) = store.assets("weather_captions")
    assert asset.manifest.counts["captions"] == 1
    files.write_text('date,text\n2024-01-01,"rain\n')
    with (
        Session(store, Silent()).active(),
        pytest.raises(ValueError, match="line 2 opens a quote that is never closed"),
    ):
        weather(config)

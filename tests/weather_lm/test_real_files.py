"""From real ERA5 files and real captions to text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.weather_lm import JoinConfig, NarrationEvaluation
from tasks.captions.placed import load_placed
from tasks.narration.narrate import Request, narrate
from tasks.narration.released import NarratorRelease
from tests.once import only
from tests.weather_lm.tiny import CONFIG, build, folders


@pytest.mark.long
def test_files_and_captions_become_a_narrator_that_tells_a_date(era5_data: Path, tmp_path: Path) -> None:
    join = JoinConfig(min_window_share=0.02, min_region_share=1.0)  # few captions name what these files show
    config = CONFIG | {
        "source": {"kind": "files", "paths": [str(era5_data / "new_cds" / "maroc_t2m_instant_daily_366x61x65.nc")]},
        "recipe": {"variables": ["t2m"]},
        "windows": {"time": 2, "height": 48, "width": 64, "stride_time": 1, "stride_height": 13},
        "splits": {"validation_share": 0.2, "test_share": 0.2, "cycles": 3},
        "captions": {
            "source": {"kind": "files", "paths": [str(era5_data / "captions")]},
            "join": join,
        },
        "ablations": {},
        "packed": {},
    }
    store, report = build(tmp_path / "assets", config)
    captions = load_placed(only(store, "weather_captions").folder)
    assert len({caption.date for caption in captions}) > 150
    pairs = {split: folders(store).pairs(split, join)[1] for split in ("train", "validation", "test")}
    assert all(len(found) for found in pairs.values())
    said = {caption.text for caption in captions}
    assert {text for found in pairs.values() for pair in found.pairs for text in pair.texts} <= said
    (table,) = json.loads((report.folder / "scores.json").read_text()).values()
    assert table["captions"] > 0

    narrator = only(store, "weather_narrator")
    release = NarratorRelease.from_release(narrator.folder)
    pair = pairs["test"].pairs[0]
    told = narrate(
        release, folders(store), join, Request(pair.date, pair.region),
        NarrationEvaluation(max_new_tokens=8), tmp_path / "told",
    )  # fmt: skip
    assert [(t.date, t.region, t.captions) for t in told] == [(pair.date, pair.region, pair.texts)]
    assert (tmp_path / "told" / f"{pair.date}_test.png").is_file()

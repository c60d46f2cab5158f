"""What a pipeline's page shows first."""

from __future__ import annotations

import re

from flows.commands.report import write_report
from flows.runs import RunRecord, recorded
from flows.weather import PIPELINE
from tasks.figures import save_figure, subplots
from tasks.progress import Silent
from tasks.session import Session
from tasks.stage import Job, StageResult, stage

FILES = ("attention.png", "curves_a.png", "curves_b.png", "predictions.png", "rollout.png", "unnamed.png")
NAMED = ("predictions.png", "rollout.png", "attention.png", "curves_b.png", "curves_a.png")


@stage("fire_score_report")
def judged(job: Job) -> StageResult:
    """Draw six pictures, and name five."""
    for name in FILES:
        save_figure(subplots(figsize=(0.2, 0.2))[0], job.folder / name)
    return StageResult(counts={"fires": 1234567}, metrics={"gain": 0.012379818}, pictures=NAMED)


def test_pictures_come_in_the_order_of_their_stage_and_curves_are_for_those_who_ask(store):
    with recorded(Session(store, Silent()), RunRecord.begin("weather", "", {}, "inline")):
        asset = judged()
    assert asset.manifest.pictures == NAMED
    page = write_report(store, PIPELINE).read_text()
    shown, _, closed = page.partition('<details><summary class="soft">training curves')
    assert re.findall('alt="([^"]+)"', shown) == ["predictions", "rollout", "attention", "unnamed"]
    assert re.findall('alt="([^"]+)"', closed.partition("</details>")[0]) == ["curves b", "curves a"]
    assert "<td>0.01238</td>" in page
    assert "<td>1234567</td>" in page


@stage("halves")
def halved(job: Job) -> StageResult:
    """Work in two parts of five steps each."""
    for part in range(2):
        progress = job.progress_in(part, 2)
        for done in range(1, 6):
            progress(done, 5)
    return StageResult()


def test_the_bar_of_work_in_parts_moves_to_its_end_once(store):
    reporter, seen = Silent(), []
    reporter.progress = lambda stage, done, total, words="": seen.append((done, total))  # type: ignore[method-assign]
    with Session(store, reporter).active():
        halved()
    assert seen == [(done, 10) for done in range(1, 11)]

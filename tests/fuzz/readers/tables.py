"""Captions of weather, and the table of regions of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from tasks.captions.read import read_captions
from tasks.captions.regions import Gazetteer, load_regions
from tests.fuzz.case import Files, Reader
from tests.fuzz.mutate import mutate_text

EVENTS = '[{""region"": ""Spain"", ""description"": ""A heat wave.""}]'
CAPTIONS = (
    f'date,region,caption\n2024-01-01,Spain,It rains.\n2024-01-02,,"{EVENTS}"\n2024-01-03,France,"Wind, and\nsnow"'
)
WORLD = Gazetteer.world()
REGIONS = "region,north,west,south,east\nMy valley,45,1,44,2\nMy coast,10,170,-10,-170"


def _make_captions(random: Random) -> Files:
    return {"captions.csv": mutate_text(random, CAPTIONS)}


def _read_captions(given: Path, made: Path) -> object:
    found = read_captions([given / "captions.csv"])
    json.dumps([caption.text for caption in found.captions]).encode()
    for caption in found.captions:
        WORLD.find(caption.region, caption.text)
    return found.report()


def _make_regions(random: Random) -> Files:
    return {"regions.csv": mutate_text(random, REGIONS)}


def _read_regions(given: Path, made: Path) -> object:
    return WORLD.extended(load_regions(given / "regions.csv")).find("My valley")


READERS = (
    Reader("captions", ("tasks.captions.read", "tasks.captions.regions"), _make_captions, _read_captions),
    Reader("regions", ("tasks.captions.regions",), _make_regions, _read_regions),
)

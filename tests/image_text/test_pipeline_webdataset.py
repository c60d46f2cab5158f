"""A shard asset as a pipeline of the `webdataset` library, and bodies that come packed unasked."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from pathlib import Path

import pytest
import webdataset

from configs.image_text import Crawling, Fetching
from storage.assets import AssetStore
from storage.image_text_pipeline import web_dataset
from tasks.image_text.fetch import Fetcher, FetchError
from tasks.samples.site_process import serve
from tasks.samples.website import Page, write_site
from tests.image_text.loader_shards import write_shards
from tests.image_text.shard_fixtures import publish
from tests.image_text.sites import noisy


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline {a,b}")
    made = write_shards(folder)
    return made, publish(AssetStore(folder / "assets"), made.shards)


def test_an_asset_is_a_pipeline_of_webdataset(written):
    made, asset = written
    pipeline = web_dataset(asset.folder)
    assert isinstance(pipeline, webdataset.WebDataset)
    found = list(pipeline)
    assert [(s["__key__"], s["jpg"], s["txt"].decode()) for s in found] == [
        (image["key"], image["jpeg"], image["txt"]) for image in made.images
    ]
    first = next(iter(web_dataset(str(asset.folder)).decode("pilrgb").to_tuple("jpg", "txt")))
    assert (first[0].size, first[1]) == ((120, 90), made.images[0]["txt"])


def test_a_split_leaves_the_others_out(written):
    made, asset = written
    for split in ("train", "validation"):
        keys = [sample["__key__"] for sample in web_dataset(asset.folder, made.index, split)]
        assert keys == [image["key"] for image in made.images if image["split"] == split]


def test_what_is_no_shard_asset_is_one_sentence(written, tmp_path):
    made, asset = written
    with pytest.raises(ValueError, match="is no asset; give the folder of image_text_shards"):
        web_dataset(tmp_path)
    with pytest.raises(ValueError, match="index_folder and split belong together"):
        web_dataset(asset.folder, made.index)


# --- bodies that come packed

IMAGE = noisy(1)
RAW = zlib.compressobj(wbits=-15)
BODIES = {
    "gzip": ("gzip", gzip.compress(IMAGE), IMAGE),
    "x-gzip": ("X-GZip", gzip.compress(IMAGE), IMAGE),
    "deflate": ("deflate", zlib.compress(IMAGE), IMAGE),
    "raw": ("deflate", RAW.compress(IMAGE) + RAW.flush(), IMAGE),
    "said": ("gzip", IMAGE, IMAGE),
    "identity": ("identity", IMAGE, IMAGE),
    "cut": ("gzip", gzip.compress(IMAGE)[:-20], ("short_body", "ended before it was whole")),
    "bomb": ("gzip", gzip.compress(bytes(3_000_000)), ("too_big", "more than 2 MB")),
    "br": ("br", IMAGE, ("not_image", "sent in a Content-Encoding that nobody asked for")),
    "two": ("gzip, gzip", IMAGE, ("not_image", "sent in a Content-Encoding that nobody asked for")),
}


@pytest.mark.input_shape(format="address", shape="body in gzip or deflate that nobody asked for", outcome="read")
def test_packed_bodies_are_unpacked_within_bounds_or_named(tmp_path: Path):
    for name, (_, body, _) in BODIES.items():
        (tmp_path / f"{name}.jpg").write_bytes(body)
    write_site(tmp_path, {f"/{n}": Page(file=f"{n}.jpg", headers={"Content-Encoding": BODIES[n][0]}) for n in BODIES})

    async def fetch(address: str) -> dict[str, object]:
        rules = Fetching(private_addresses=True, max_megabytes=2)
        found: dict[str, object] = {}
        async with Fetcher(rules, Crawling(), {}) as fetcher:
            for name in BODIES:
                try:
                    found[name] = await fetcher.get(f"{address}/{name}")
                except FetchError as error:
                    found[name] = error.status, error.detail
        return found

    with serve(tmp_path) as site:
        assert asyncio.run(fetch(site.address)) == {name: wanted for name, (_, _, wanted) in BODIES.items()}

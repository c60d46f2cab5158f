"""The stage that renders scenes, lists them as CC12M or PixMo do, and lays out the web site that serves them.

The asset holds

    site/000000.jpg, site/000001.png, …    one file per scene, of the kinds that the web has
    trouble/…                              what is served instead of images
    site.json                              the pages of the web site (see `tasks.samples.website`)
    list.tsv or list.parquet               the list, in the layout of CC12M or PixMo
    truth.parquet                          of every URL: what it shows, how it misbehaves, what must come of fetching it
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.image_text_sample import SAMPLE_HOST, SampleScenes
from storage.assets import Unit
from storage.files import write_atomic
from storage.hashing import file_sha256
from tasks.samples.scene_model import Scene, make_scene
from tasks.stage import Job, StageResult, stage
from tasks.units import UnitOutput

if TYPE_CHECKING:
    from tasks.samples.website import Page

SITE = f"http://{SAMPLE_HOST}"
IMAGES_PER_UNIT = 50
COPIES_EVERY = 40
"""Of so many images one has the very bytes of another, and one nearly its pixels."""

UNLIKE_LISTED = ("not_image", "truncated")
"""What comes of bodies that are not those of the listed image; where the list has a hash, that shows first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A listed URL: the scene that its text is about, the page that answers, and what must come of fetching it."""

    path: str
    page: Page
    expected: str
    image: int


@stage("image_text_sample")
def image_text_sample(job: Job, *, source: SampleScenes) -> StageResult:
    """Render scenes, and write their list, the web site that misbehaves, and the truth about both."""
    from tasks.samples.website import write_site

    units = []
    for first in range(0, source.images, IMAGES_PER_UNIT):
        images = range(first, min(first + IMAGES_PER_UNIT, source.images))
        identity = [source.seed, source.side, images.start, images.stop]
        units.append(job.unit(f"images-{first:06d}", identity, (source, images)))
    records = job.map(_render, units)
    hashes = {file.path: file.sha256 for record in records for file in record.files} | _trouble_files(job.folder)
    entries = list(_entries(source))
    write_site(job.folder, {entry.path: entry.page for entry in entries})
    rows = _write_list(job.folder, source, entries, hashes)
    _write_truth(job.folder / "truth.parquet", source, entries, hashes)
    misbehaving = sum(entry.expected != "ok" for entry in entries)
    return StageResult(counts={"images": source.images, "urls": len(entries), "bad_urls": misbehaving, "rows": rows})


def depicted(image: int) -> int:
    """Return the scene that an image shows: its own, or for a copy that of an earlier image."""
    return image - 7 if image >= COPIES_EVERY // 2 and image % (COPIES_EVERY // 2) == 0 else image


def image_file(source: SampleScenes, image: int) -> tuple[str, str]:
    """Return an image's file in the asset, and the kind of file that it is."""
    from tasks.samples.scene_drawing import SUFFIXES, file_format

    scene = depicted(image)
    nearly = scene != image and image % COPIES_EVERY
    kind = "jpeg_copy" if nearly else file_format(make_scene(source.seed, scene), source.seed, scene)
    return f"site/{image:06d}{SUFFIXES.get(kind, '.jpg')}", kind


def _render(folder: Path, unit: Unit) -> UnitOutput:
    """Draw the scenes of a unit, into files of all kinds."""
    from tasks.samples.scene_drawing import draw_scene, encode

    source, images = unit.payload
    files = []
    for image in images:
        scene = depicted(image)
        name, kind = image_file(source, image)
        picture = draw_scene(make_scene(source.seed, scene), source.seed, scene, source.side)
        write_atomic(folder / name, encode(picture, kind))
        files.append(name)
    return UnitOutput(files)


def _trouble_files(folder: Path) -> dict[str, str]:
    """Write what is served instead of images; return the SHA-256 of each file."""
    from tasks.samples.trouble import FOLDER, write_trouble_files

    write_trouble_files(folder)
    return {f"{FOLDER}/{path.name}": file_sha256(path) for path in (folder / FOLDER).iterdir()}


def _entries(source: SampleScenes) -> Iterator[Entry]:
    """List every image, and trouble between them; more images leave the earlier entries as they are."""
    from tasks.samples.trouble import troubles
    from tasks.samples.website import Page

    kinds = list(troubles(""))
    count = 0
    for image in range(source.images):
        file, _ = image_file(source, image)
        yield Entry(f"/{Path(file).name}", Page(file=file), "ok", image)
        while count < int((image + 1) * source.misbehaving_share):
            kind = kinds[count % len(kinds)]
            trouble = troubles(file)[kind]
            path = "/circle" if kind == "circle" else f"/{kind}/{count:05d}.jpg"
            listed_hash = source.layout == "pixmo_qa" and trouble.status in UNLIKE_LISTED
            yield Entry(path, trouble.page, "hash_mismatch" if listed_hash else trouble.status, image)
            count += 1


def _scene(source: SampleScenes, entry: Entry) -> Scene:
    return make_scene(source.seed, depicted(entry.image))


def _write_list(folder: Path, source: SampleScenes, entries: Sequence[Entry], hashes: Mapping[str, str]) -> int:
    """Write the list in the layout that is asked for; return the number of its rows."""
    from tasks.samples.scene_questions import questions
    from tasks.samples.scene_texts import long_caption, short_caption

    if source.layout == "cc12m":
        captions = [short_caption(_scene(source, entry), source.seed, n) for n, entry in enumerate(entries)]
        lines = [f"{SITE}{entry.path}\t{caption}\n" for entry, caption in zip(entries, captions, strict=True)]
        write_atomic(folder / "list.tsv", "".join(lines))
        return len(lines)
    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        scene, url = _scene(source, entry), f"{SITE}{entry.path}"
        if source.layout == "pixmo_cap":
            spoken = [short_caption(scene, source.seed, 3 * number + k) for k in range(3)]
            rows.append({"image_url": url, "caption": long_caption(scene, source.seed, number), "transcripts": spoken})
        else:
            known = {"image_url": url, "image_sha256": hashes[_listed_file(source, entry)]}
            asked = questions(scene, source.seed, entry.image)
            rows += [{**known, "question": one.question, "answer": one.answer} for one in asked]
    _write_parquet(folder / "list.parquet", rows)
    return len(rows)


def _listed_file(source: SampleScenes, entry: Entry) -> str:
    """Return the file whose hash is listed: the scene's own, or the unsuitable image that was listed in its place."""
    unsuitable = entry.page.file and entry.expected in ("too_small", "aspect", "too_many_pixels")
    return entry.page.file if unsuitable else image_file(source, entry.image)[0]


def _write_truth(path: Path, source: SampleScenes, entries: Sequence[Entry], hashes: Mapping[str, str]) -> None:
    """Write what every URL shows, how it misbehaves, and what must come of fetching it."""
    _write_parquet(
        path,
        [
            {
                "url": f"{SITE}{entry.path}",
                "path": entry.path,
                "file": entry.page.file,
                "sha256": hashes.get(entry.page.file, ""),
                "behaviour": entry.page.behaviour,
                "expected": entry.expected,
                "image": entry.image,
                "scene": json.dumps(_scene(source, entry).as_json(), sort_keys=True),
            }
            for entry in entries
        ],
    )


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa

    from storage.shard_set import parquet_bytes

    write_atomic(path, parquet_bytes(pa.Table.from_pylist(list(rows))))

"""Reading image-text samples.

2000 generated pictures with the detail of photographs, stored as the shards stage does by default: shorter side 256
pixels, sides 4:3 or 3:4, JPEG of quality 95, about 45 kB, each with a caption. Every reader has a process of its own;
files are in the page cache; rounds are interleaved. Before the clock starts all readers must return the same captions
and, at full size, the same pixels to the bit.

Ours reads in a full shuffle, a new one each epoch. `webdataset` reads the same tars in stored order, which is its
quickest, with `.decode("pilrgb").to_tuple("jpg", "json")`.

- `loader_vs_webdataset`: images as they are stored. Both decode every pixel; ours gives a uint8 tensor of the middle
  square, webdataset a loaded PIL image. More than nine tenths of our time are those of libjpeg-turbo, which both use.
- `loader_224_vs_webdataset`: what a training gets, a contiguous uint8 tensor (3, 224, 224) of the middle square.
  webdataset is followed by Pillow's bilinear resize, ours resizes with cv2.
- `loader_vs_streaming`: LitData in its own format (converted before the clock starts), shuffled. Its decoder is
  torchvision's, which does not load beside the CPU build of torch, so it returns bytes and simplejpeg decodes them, as
  in ours. mosaicml-streaming cannot be compared: it does not install beside our pinned versions, and with its own
  versions does not import for the same torchvision.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.environment import PEERS, peer_python
from benchmarks.figure import Figure
from benchmarks.process import REPOSITORY, Program
from benchmarks.programs.shard_reader import READERS, STORED
from storage.shard_index import ENTRY, INDEX
from storage.shard_set import TarWriter, image_key

PER_SHARD = 500
QUALITY = 95

Results = dict[str, list[dict[str, float]]]


def run(bench: Bench) -> list[Figure]:
    """Measure our reader and its peers on generated pictures, and on the shared photographs where they are present."""
    images = 64 if bench.quick else 2000
    bench.say(f"making {images} pictures")
    described = write_shards(bench.work / "generated", (_picture(number) for number in range(images)))
    results = _measure(bench, bench.work / "generated", images)
    detail: dict[str, Any] = {
        "data": described, "quality": QUALITY, "litdata": PEERS["litdata"].packages[0], "rounds": results,
    }  # fmt: skip
    photographs = sorted(shared_photographs())
    if photographs and not bench.quick:
        described = write_shards(bench.work / "shared", map(_stored, photographs))
        theirs = _measure(bench, bench.work / "shared", len(photographs))
        detail["photographs"] = {"data": described, "rounds": theirs}
    return [
        _figure(bench, detail, "loader_vs_webdataset", "millrace", "webdataset", "Image-text samples", ">= 2"),
        _figure(
            bench, detail, "loader_224_vs_webdataset", "millrace_224", "webdataset_224",
            "Image-text samples as 224 x 224 tensors", ">= 2",
        ),
        _figure(bench, detail, "loader_vs_streaming", "millrace", "litdata", "Image-text samples", None),
    ]  # fmt: skip


def shared_photographs() -> Iterator[Path]:
    """Yield the shared photographs, where they are present."""
    place = Path(os.environ.get("MILLRACE_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    return (place / "image_text" / "images").glob("*.jpg")


def write_shards(folder: Path, pictures: Iterator[NDArray[np.uint8]]) -> dict[str, Any]:
    """Write pictures as shards with an index that holds them all; return how many and how large they are."""
    shards, index = folder / "shards", folder / "index"
    shards.mkdir(parents=True)
    index.mkdir()
    entries: list[tuple[int, ...]] = []
    listed: list[dict[str, Any]] = []
    sizes: list[int] = []
    numbered = enumerate(pictures)
    while batch := list(islice(numbered, PER_SHARD)):
        path = shards / f"{len(listed):05d}.tar"
        with TarWriter(path) as tar:
            for number, pixels in batch:
                jpeg = simplejpeg.encode_jpeg(pixels, QUALITY, "RGB", "420", fastdct=False)
                members = _add(tar, number, jpeg, pixels.shape)
                entries.append((len(listed), 0, *members))
                sizes.append(len(jpeg))
        listed.append({"name": path.name, "bytes": tar.size, "sha256": tar.sha256})
    np.save(index / "train.npy", np.array(entries, ENTRY))
    (index / INDEX).write_text(json.dumps({"shards": listed, "counts": {}, "splits": {}}))
    return {"images": len(sizes), "mean_kilobytes": round(statistics.fmean(sizes) / 1e3, 1), "shorter_side": STORED}


def _add(tar: TarWriter, number: int, jpeg: bytes, shape: tuple[int, ...]) -> tuple[int, ...]:
    key, caption = image_key(number), f"picture {number}: a small boat on a lake in front of mountains at sunset"
    facts = {
        "key": key, "url": f"https://example.org/pictures/{number}.jpg", "sha256": f"{number:064x}",
        "width": shape[1], "height": shape[0], "original_width": 2 * shape[1], "original_height": 2 * shape[0],
        "rows": [{
            "row": number, "caption": caption, "question": "", "answer": "", "templated": False, "extra": "",
        }],
    }  # fmt: skip
    jpg = tar.add(f"{key}.jpg", jpeg)
    text = tar.add(f"{key}.json", json.dumps(facts, sort_keys=True).encode())
    tar.add(f"{key}.txt", caption.encode())
    return *jpg, *text


def _picture(number: int) -> NDArray[np.uint8]:
    """Return noise whose amplitude falls with its frequency, as in photographs."""
    random = np.random.default_rng(number)
    height, width = (STORED, STORED * 4 // 3) if number % 2 else (STORED * 4 // 3, STORED)
    pixels = np.full((height, width, 3), 128, np.float32)
    for octave in range(1, 9):
        shape = max(2, height * 2**octave // 256), max(2, width * 2**octave // 256)
        light = random.normal(0, 1, (*shape, 1)) + 0.3 * random.normal(0, 1, (*shape, 3))
        pixels += 45 * 0.76**octave * cv2.resize(light.astype(np.float32), (width, height))
    return pixels.clip(0, 255).astype(np.uint8)


def _stored(path: Path) -> NDArray[np.uint8]:
    """Return a photograph at the size in which it is stored."""
    pixels = simplejpeg.decode_jpeg(path.read_bytes(), "RGB")
    scale = STORED / min(pixels.shape[:2])
    height, width = (round(length * scale) for length in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))


def _measure(bench: Bench, folder: Path, images: int) -> Results:
    rounds, seconds = (2, 0.2) if bench.quick else (9, 1.5)
    task = {name: str(folder / name) for name in ("shards", "index")} | {"folder": str(folder / "litdata")}
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(Program("shard_reader", task | {"reader": name}, _python(name)))
            for name in READERS
        }
        _require_equal({name: program.ask({"check": images}) for name, program in programs.items()}, images)
        bench.say(f"{rounds} rounds of {seconds} s for each of {', '.join(programs)}")
        reads = {name: lambda program=program: program.ask({"seconds": seconds}) for name, program in programs.items()}
        interleave(1, reads)
        return interleave(rounds, reads)


def _python(reader: str) -> Path | None:
    return peer_python("litdata") if reader == "litdata" else None


def _require_equal(seen: dict[str, dict[str, Any]], images: int) -> None:
    for name, samples in seen.items():
        wanted = seen["millrace_224" if name.endswith("_224") else "millrace"]
        if len(samples) != images or samples.keys() != wanted.keys():
            raise RuntimeError(f"{name} does not return every sample once; there is nothing to compare")
        for key, (text, pixels) in samples.items():
            other_text, other = wanted[key]
            close = pixels == other if isinstance(pixels, str) else np.allclose(pixels, other, atol=1)
            if text != other_text or not close:
                raise RuntimeError(f"{name} returns another text or image for {key}; there is nothing to compare")


def _figure(
    bench: Bench, detail: dict[str, Any], name: str, ours: str, peer: str, what: str, aim: str | None
) -> Figure:
    rounds: Results = detail["rounds"]
    cpu, wall = (
        {who: statistics.median(_rates(rounds[who], kind)) for who in (ours, peer)} for kind in ("cpu", "wall")
    )
    words = peer.removesuffix("_224")
    notes = [
        f"Millrace {cpu[ours]:.0f}, {words} {cpu[peer]:.0f} samples per CPU-second.",
        f"By wall time {_ratio(rounds, ours, peer, 'wall'):.3g} x: {wall[ours]:.0f} against {wall[peer]:.0f} samples "
        "per second.",
    ]
    if "photographs" in detail:
        found = detail["photographs"]
        notes.append(
            f"On {found['data']['images']} photographs, {found['data']['mean_kilobytes']:.0f} kB on average, "
            f"{_ratio(found['rounds'], ours, peer, 'cpu'):.3g} x."
        )
    return bench.figure(
        name,
        what=f"{what} per CPU-second, fully shuffled",
        value=rounded(_ratio(rounds, ours, peer, "cpu")),
        unit="x",
        aim=aim,
        peer={"litdata": "LitData with the same decoder"}.get(peer, 'webdataset `.decode("pilrgb")` in stored order'),
        peer_value=rounded(cpu[peer]),
        peer_unit="samples per CPU-second",
        notes=tuple(notes),
        detail=detail | {"rounds": {who: rounds[who] for who in (ours, peer)}},
    )


def _rates(rounds: list[dict[str, float]], kind: str) -> list[float]:
    return [found["samples"] / found[kind] for found in rounds]


def _ratio(rounds: Results, ours: str, peer: str, kind: str) -> float:
    return median_ratio(_rates(rounds[ours], kind), _rates(rounds[peer], kind))

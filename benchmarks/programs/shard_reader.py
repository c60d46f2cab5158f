"""Serves rounds of image-text samples by one reader: ours, or one of its peers.

Arguments: reader, shards (the folder of tars), index (ours), folder (for a peer that has a format of its own). Readers
of full size return images as they are stored; those that end in `_224` return uint8 tensors (3, 224, 224).

`{"check": n}` answers with text and pixels of the first n samples, by key: a digest of the middle square at full size,
mean values of the planes else. `{"seconds": s}` reads until the time is over, at least eight samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.stopwatch import Stopwatch

Sample = tuple[str, str, Any]
"""Key, caption, and the image as the reader returns it."""
STORED = 256
"""Shorter side of stored images."""
SMALL = 224
BATCH = 64


def _millrace(task: dict[str, Any], side: int = STORED) -> Iterator[Sample]:
    """Our loader, every epoch in another full shuffle; at the stored size it decodes all pixels and cuts the middle."""
    from storage.image_text_dataset import ImageTextDataset
    from storage.sampling import KeyedBatchSampler

    dataset = ImageTextDataset(Path(task["shards"]), Path(task["index"]), "train", side=side)
    sampler = KeyedBatchSampler(len(dataset), BATCH, seed=0, drop_last=False)
    for epoch in count():
        sampler.seek(epoch)
        for batch in sampler:
            for index in batch:
                sample = dataset[index]
                yield sample["key"], sample["caption"], sample["image"]


def _millrace_224(task: dict[str, Any]) -> Iterator[Sample]:
    """The same at the size of a training, copied into planes one by one as stacking a batch would."""
    import torch

    torch.set_num_threads(1)  # as in the processes of a DataLoader
    for key, caption, image in _millrace(task, SMALL):
        yield key, caption, image.contiguous()


def _webdataset(task: dict[str, Any]) -> Iterator[Sample]:
    """The usual pipeline, tar after tar in stored order, which is its quickest."""
    import webdataset

    tars = sorted(map(str, Path(task["shards"]).glob("*.tar")))
    while True:
        for image, facts in webdataset.WebDataset(tars, shardshuffle=False).decode("pilrgb").to_tuple("jpg", "json"):
            yield facts["key"], facts["rows"][0]["caption"], image


def _webdataset_224(task: dict[str, Any]) -> Iterator[Sample]:
    """The same, scaled as for a training; bilinear is the quickest of Pillow's filters that do not alias."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    for key, caption, image in _webdataset(task):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        small = np.array(image.resize((SMALL, SMALL), Image.Resampling.BILINEAR, box))
        yield key, caption, torch.from_numpy(small).permute(2, 0, 1).contiguous()


def _litdata(task: dict[str, Any]) -> Iterator[Sample]:
    """LitData in its own format, shuffled, with the decoder that ours has."""
    os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"
    import simplejpeg
    from litdata import StreamingDataset  # type: ignore[import-not-found]

    folder = Path(task["folder"])
    _write_litdata(Path(task["shards"]), folder)
    samples = StreamingDataset(str(folder), shuffle=True)
    while True:
        for sample in samples:
            yield sample["key"], sample["caption"], simplejpeg.decode_jpeg(sample["image"], "RGB", strict=True)


def _write_litdata(shards: Path, folder: Path) -> None:
    from litdata.streaming.cache import Cache  # type: ignore[import-not-found]

    cache = Cache(str(folder), chunk_bytes="64MB")
    number = 0
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name in (name for name in contents if name.endswith(".jpg")):
            facts = json.loads(contents[name.replace(".jpg", ".json")])
            cache[number] = {"key": facts["key"], "caption": facts["rows"][0]["caption"], "image": contents[name]}
            number += 1
    cache.done()
    cache.merge()


READERS: dict[str, Callable[[dict[str, Any]], Iterator[Sample]]] = {
    "millrace": _millrace,
    "webdataset": _webdataset,
    "litdata": _litdata,
    "millrace_224": _millrace_224,
    "webdataset_224": _webdataset_224,
}


def serve(task: dict[str, Any]) -> None:
    """Answer requests until standard input ends."""
    samples = READERS[task["reader"]](task)
    seen = _small if task["reader"].endswith("_224") else _digest
    for line in sys.stdin:
        request = json.loads(line)
        if "check" in request:
            answer: Any = {key: [text, seen(image)] for key, text, image in islice(samples, request["check"])}
        else:
            answer = _round(samples, request["seconds"])
        print(json.dumps(answer), flush=True)


def _digest(image: Any) -> str:
    """Return a digest of the middle square, of an image with colours last or first."""
    pixels: NDArray[np.uint8] = np.asarray(image)
    if pixels.shape[0] == 3:
        pixels = pixels.transpose(1, 2, 0)
    top, left = ((length - STORED) // 2 for length in pixels.shape[:2])
    middle = pixels[top : top + STORED, left : left + STORED]
    if middle.shape != (STORED, STORED, 3) or middle.dtype != np.uint8:
        raise TypeError(f"images are {pixels.dtype} {pixels.shape}")
    return hashlib.sha256(middle.tobytes()).hexdigest()


def _small(image: Any) -> list[float]:
    """Return the mean of each plane of a tensor."""
    if tuple(image.shape) != (3, SMALL, SMALL) or str(image.dtype) != "torch.uint8" or not image.is_contiguous():
        raise TypeError(f"images are {image.dtype} {tuple(image.shape)}, or not contiguous")
    return np.asarray(image).mean(axis=(1, 2)).round(3).tolist()


def _round(samples: Iterator[Sample], seconds: float) -> dict[str, float]:
    done = 0
    end = time.perf_counter() + seconds
    with Stopwatch() as watch:
        for _ in samples:
            done += 1
            if done >= 8 and time.perf_counter() > end:
                break
    return {"samples": done, **watch.as_json()}


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))

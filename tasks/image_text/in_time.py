"""Pictures within a deadline: what may take long is decoded in a process of its own, which can be ended.

A thread that sits in a decoder cannot be stopped. Most images are decoded in milliseconds, so these stay here.

    python -m tasks.image_text.in_time RULES PARENT    reads a file from stdin; writes facts as a line, then the JPEG
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from configs.image_text import ImageFormat
from storage.image_files import FRAMES, jpeg_segments
from tasks.image_text.picture import Picture, UnusableError, kind_of, make_picture, scans
from tasks.units import die_with_parent

QUICK = 100_000_000
"""Pixels of baseline JPEG that are decoded without a guard: a second at most."""
STARTING = 5.0
"""Seconds that a process may take to begin, beside the deadline."""
SLOWER = 10
"""How much longer a pixel of another format may take."""


def picture_in_time(data: bytes, rules: ImageFormat, seconds: float) -> Picture:
    """Do what `make_picture` does; `UnusableError` where it takes longer than so many seconds."""
    pixels, times = effort(data)
    if pixels * times <= QUICK or pixels > rules.max_megapixels * 1e6:  # the latter is refused by its header
        return make_picture(data, rules)
    command = [sys.executable, "-m", "tasks.image_text.in_time", rules.model_dump_json(), str(os.getpid())]
    try:
        done = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            timeout=seconds + STARTING,
            cwd=Path(__file__).parent.parent.parent,
        )
    except subprocess.TimeoutExpired:
        raise UnusableError("decode_error", f"not decoded within {seconds:g} s") from None
    if done.returncode:
        raise UnusableError("decode_error", "its decoder crashed")
    line, _, jpeg = done.stdout.partition(b"\n")
    facts = json.loads(line)
    if "status" in facts:
        raise UnusableError(**facts)
    return Picture(jpeg=jpeg, **facts)


def effort(data: bytes) -> tuple[int, int]:
    """Return an image's pixels by its header, none for no image, and how often a baseline JPEG would hold them."""
    kind = kind_of(data)
    if kind == "JPEG":
        frame = next((data[s.start : s.end] for s in jpeg_segments(data) if s.marker in FRAMES), b"")
        return int.from_bytes(frame[1:3], "big") * int.from_bytes(frame[3:5], "big"), scans(data)
    try:
        with Image.open(io.BytesIO(data), formats=(kind or "JPEG",)) as image:
            return image.width * image.height, SLOWER
    except Exception:  # Pillow's readers raise what they like; whoever decodes will say it
        return 0, SLOWER


def main(rules: str, parent: str) -> None:
    """Make one picture and write it."""
    die_with_parent(int(parent))
    try:
        picture = make_picture(sys.stdin.buffer.read(), ImageFormat.model_validate_json(rules))
        facts = {name: value for name, value in asdict(picture).items() if name != "jpeg"}
        answer = json.dumps(facts).encode() + b"\n" + picture.jpeg
    except UnusableError as error:
        answer = json.dumps({"status": error.status, "detail": error.detail}).encode()
    sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])

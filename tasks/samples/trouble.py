"""Everything that goes wrong between a URL and an image, as pages of a web site, with what must come of each."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from storage.files import write_atomic
from tasks.samples.website import Page

FOLDER = "trouble"
PRIVATE = (
    "http://127.0.0.1:1/x.jpg", "http://10.0.0.1/x.jpg", "http://169.254.169.254/latest/meta-data/", "http://[::1]/x.jpg",
    "http://localhost/x.jpg", "http://[::ffff:127.0.0.1]/x.jpg",
)  # fmt: skip
"""Where no redirect may lead."""
DISGUISED = ("http://2130706433/x.jpg", "http://127.1/x.jpg")
"""The same, in ways of writing that no URL should have."""


class Trouble(NamedTuple):
    """A page, and the status that must come of fetching it."""

    page: Page
    status: str


def write_trouble_files(folder: Path) -> None:
    """Write the files that the pages serve besides good images, below `FOLDER`."""
    grey = Image.new("RGB", (64, 64), "grey")
    files = {
        "small.jpg": _file(grey.resize((20, 20)), "JPEG"),
        "long.jpg": _file(grey.resize((800, 60)), "JPEG"),
        "bomb.png": _bomb(20_000, 20_000),
        "page.pdf": b"%PDF-1.7\n%...",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "packed.jpg": gzip.compress(_file(grey, "JPEG"), mtime=0),
    }
    for name, content in files.items():
        write_atomic(folder / FOLDER / name, content)


def troubles(good: str) -> dict[str, Trouble]:
    """Return every kind of trouble by its name; `good` is the file of a good image, which some of them end in."""
    own = {
        name: f"{FOLDER}/{name}"
        for name in ("small.jpg", "long.jpg", "bomb.png", "page.pdf", "drawing.svg", "packed.jpg")
    }
    redirects = {
        "circle": Trouble(Page(behaviour="redirect", location="/circle"), "redirect_blocked"),
        "to_file": Trouble(Page(behaviour="redirect", location="file:///etc/passwd"), "redirect_blocked"),
        "to_ftp": Trouble(Page(behaviour="redirect", location="ftp://example.org/x.jpg"), "redirect_blocked"),
        **{f"private_{n}": Trouble(Page(behaviour="redirect", location=place), "private_address")
           for n, place in enumerate(PRIVATE)},
        **{f"disguised_{n}": Trouble(Page(behaviour="redirect", location=place), "bad_url")
           for n, place in enumerate(DISGUISED)},
    }  # fmt: skip
    return {
        "missing": Trouble(Page(behaviour="status", status=404), "http_404"),
        "forbidden": Trouble(Page(behaviour="status", status=403), "http_403"),
        "cut": Trouble(Page(behaviour="cut", file=good), "truncated"),
        "html": Trouble(Page(behaviour="html"), "not_image"),
        "broken_once": Trouble(Page(behaviour="flaky", status=503, failures=1, retry_after="date", file=good), "ok"),
        "hangs_up_once": Trouble(Page(behaviour="flaky", status=0, failures=1, file=good), "ok"),
        "noai": Trouble(Page(headers={"X-Robots-Tag": "noai"}, file=good), "robots_optout"),
        "drip": Trouble(Page(behaviour="drip", file=good), "timeout"),
        "bomb": Trouble(Page(file=own["bomb.png"]), "too_many_pixels"),
        "gone": Trouble(Page(behaviour="status", status=410), "http_410"),
        "teapot": Trouble(Page(behaviour="status", status=418), "http_4xx"),
        "broken": Trouble(Page(behaviour="status", status=500), "http_5xx"),
        "busy": Trouble(Page(behaviour="status", status=429, retry_after="3600"), "http_429"),
        "busy_once": Trouble(Page(behaviour="flaky", status=429, failures=1, retry_after="1", file=good), "ok"),
        "hangs_up": Trouble(Page(behaviour="reset"), "connect"),
        "truncated": Trouble(Page(behaviour="truncated", file=good), "short_body"),
        "html_as_jpeg": Trouble(Page(behaviour="html", content_type="image/jpeg"), "not_image"),
        "mislabelled": Trouble(Page(content_type="text/plain", file=good), "ok"),
        "pdf": Trouble(Page(file=own["page.pdf"], content_type="image/jpeg"), "not_image"),
        "svg": Trouble(Page(file=own["drawing.svg"], content_type="image/svg+xml"), "not_image"),
        "empty": Trouble(Page(behaviour="empty"), "not_image"),
        "huge": Trouble(Page(behaviour="huge", file=good), "too_big"),
        "endless": Trouble(Page(behaviour="endless", file=good), "too_big"),
        "small": Trouble(Page(file=own["small.jpg"]), "too_small"),
        "long": Trouble(Page(file=own["long.jpg"]), "aspect"),
        "noai_for_us": Trouble(
            Page(headers={"X-Robots-Tag": "otherbot: all, millrace: noindex"}, file=good), "robots_optout"
        ),
        "noai_for_others": Trouble(Page(headers={"X-Robots-Tag": "otherbot: noai"}, file=good), "ok"),
        "gzip": Trouble(Page(file=own["packed.jpg"], headers={"Content-Encoding": "br"}), "not_image"),
        **redirects,
    }


def _file(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _bomb(width: int, height: int) -> bytes:
    """Return a small PNG of many pixels."""
    rows = zlib.compress(bytes(1 + width // 8) * height, 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )

"""A web site on this machine that serves a folder of images and misbehaves as the web does.

`site.json` in the folder lists its pages. Run it by hand to look at one:

    python -m tasks.samples.website FOLDER [--port 8000] [--certificate CERT --key KEY]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Coroutine, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from storage.files import write_atomic
from tasks.samples.site_process import REQUESTS, Certificate
from tasks.units import die_with_parent

SITE = "site.json"
TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".gif": "image/gif", ".webp": "image/webp"}
HTML = b"<!doctype html><title>Sorry</title><p>The picture has moved.</p>"
DRIP_SECONDS = 0.05
FLOOD = b"\xff\xd8\xff" + bytes(2**16 - 3)
CHUNK = b"%x\r\n%b\r\n" % (len(FLOOD), FLOOD)
MEMORY = 2**30
"""Bytes of files that a site keeps."""
RESET = struct.pack("ii", 1, 0)
"""Value of SO_LINGER with which closing a socket resets the connection."""

Behaviour = Literal[
    "ok", "status", "flaky", "drip", "truncated", "cut", "html", "huge", "endless", "redirect", "reset", "empty",
]  # fmt: skip


class Page(BaseModel):
    """What is answered at one path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    behaviour: Behaviour = "ok"
    """`ok` serves the file; `status` answers with `status`; `flaky` does so for the first `failures` requests, or
    resets the connection when `status` is 0; `drip` sends a byte at a time; `truncated` promises the whole file and
    ends midway; `cut` promises nothing and does so; `html` is a page of text; `huge` promises a terabyte and begins to
    send it; `endless` promises nothing and never ends; `redirect` leads to `location`; `reset` resets the connection;
    `empty` has no body."""
    file: str = ""
    """The file behind the page, relative to the folder."""
    content_type: str = ""
    """What it is called; by its name when empty."""
    status: int = 200
    failures: int = 0
    location: str = ""
    retry_after: str = ""
    """Value of Retry-After; `date` stands for a date two seconds from now."""
    delay: float = 0.0
    """Seconds before the file is served."""
    headers: dict[str, str] = {}
    """Further headers, e.g. X-Robots-Tag."""


Pages = Mapping[str, Page]


def write_site(folder: Path, pages: Pages) -> None:
    """Write the list of pages, by path (`/a.jpg`)."""
    listing = {path: page.model_dump(exclude_defaults=True) for path, page in sorted(pages.items())}
    write_atomic(folder / SITE, json.dumps(listing, indent=0) + "\n")


def load_site(folder: Path) -> dict[str, Page]:
    """Return the pages of a folder."""
    return {path: Page.model_validate(page) for path, page in json.loads((folder / SITE).read_bytes()).items()}


class Bodies:
    """The files of a site, read once each and kept as long as there is room."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._room = MEMORY
        self._kept: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        body = self._kept.get(name)
        if body is None:
            body = (self._folder / name).read_bytes()
            if len(body) <= self._room:
                self._room -= len(body)
                self._kept[name] = body
        return body


class WebSite(asyncio.Protocol):
    """One connection, with keep-alive."""

    def __init__(self, pages: Pages, asked: Counter[str], bodies: Bodies) -> None:
        self._pages, self._asked, self._bodies = pages, asked, bodies
        self._received = b""
        self._busy: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer whole requests; they have no bodies."""
        self._received += data
        self._answer_all()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop what was still being sent."""
        if self._busy is not None:
            self._busy.cancel()

    def pause_writing(self) -> None:
        """Let what is being sent wait for the other side."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let it go on."""
        self._writable.set()

    def _answer_all(self) -> None:
        while b"\r\n\r\n" in self._received and self._busy is None and not self._transport.is_closing():
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            self._answer(urlsplit(head.split(b" ", 2)[1].decode()).path)

    def _answer(self, path: str) -> None:
        if path == REQUESTS:
            self._send(200, json.dumps(self._asked).encode(), "application/json")
            return
        self._asked[path] += 1
        page = self._pages.get(path, Page(behaviour="status", status=404))
        flaky = page.behaviour == "flaky" and self._asked[path] <= page.failures
        if page.behaviour == "reset" or (flaky and page.status == 0):
            self._reset()
        elif page.behaviour == "status" or flaky:
            self._send(page.status, HTML, "text/html", {**page.headers, **_retry_after(page)})
        elif page.behaviour == "redirect":
            self._send(302, b"", "text/html", {"Location": page.location})
        elif page.behaviour == "html":
            self._send(200, HTML, page.content_type or "text/html")
        elif page.behaviour == "empty":
            self._send(200, b"", "image/jpeg")
        elif page.delay:
            self._go_on(self._serve_late(page))
        else:
            self._serve_file(page)

    def _serve_file(self, page: Page) -> None:
        body = self._bodies[page.file]
        kind = page.content_type or TYPES[Path(page.file).suffix]
        match page.behaviour:
            case "truncated":
                self._send(200, body[: len(body) // 2], kind, {"Content-Length": str(len(body))}, close=True)
            case "cut":
                self._send(200, body[: len(body) // 2], kind, {"Content-Length": "", "Connection": "close"}, close=True)
            case "huge":
                self._send(200, body, kind, {"Content-Length": str(2**40)})
                self._go_on(self._flood(FLOOD))
            case "drip":
                self._send(200, b"", kind, {"Content-Length": str(len(body))})
                self._go_on(self._drip(body))
            case "endless":
                self._send(200, b"", kind, {"Content-Length": "", "Transfer-Encoding": "chunked"})
                self._go_on(self._flood(CHUNK))
            case _:
                self._send(200, body, kind, page.headers)

    def _send(
        self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None, *, close: bool = False
    ) -> None:
        """Write an answer; an empty header value leaves the header out."""
        values = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
        lines = [f"HTTP/1.1 {status} .", *(f"{name}: {value}" for name, value in values.items() if value), "", ""]
        self._transport.write("\r\n".join(lines).encode() + body)
        if close:
            self._transport.close()

    def _reset(self) -> None:
        """End the connection as a crash does, without an answer."""
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()

    def _go_on(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send more by and by; further requests wait for the end."""
        self._busy = asyncio.create_task(sending)

    async def _serve_late(self, page: Page) -> None:
        await asyncio.sleep(page.delay)
        self._busy = None
        self._serve_file(page)
        self._answer_all()

    async def _drip(self, body: bytes) -> None:
        """Send so little at a time that every read succeeds and the whole comes late."""
        for position in range(len(body)):
            self._transport.write(body[position : position + 1])
            await asyncio.sleep(DRIP_SECONDS)
        self._busy = None
        self._answer_all()

    async def _flood(self, piece: bytes) -> None:
        """Send a piece again and again, as fast as it is read, until the other side has had enough."""
        while True:
            self._transport.write(piece)
            await asyncio.sleep(0)
            await self._writable.wait()


def _retry_after(page: Page) -> dict[str, str]:
    if not page.retry_after:
        return {}
    return {"Retry-After": formatdate(time.time() + 2, usegmt=True) if page.retry_after == "date" else page.retry_after}


async def run_site(folder: Path, port: int, certificate: Certificate | None) -> None:
    """Serve for ever; say on standard output where."""
    pages, asked, bodies = load_site(folder), Counter[str](), Bodies(folder)
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.certificate, certificate.key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: WebSite(pages, asked, bodies), "127.0.0.1", port, ssl=context, backlog=1024
    )
    print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve the folder that the command line names."""
    parser = argparse.ArgumentParser("python -m tasks.samples.website", description="Serve a folder with a site.json.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0, help="a free one when absent")
    parser.add_argument("--certificate", type=Path, help="PEM file, for https")
    parser.add_argument("--key", type=Path, help="PEM file of its key")
    parser.add_argument("--parent", type=int, help="process whose end ends the site")
    options = parser.parse_args()
    if options.parent:
        die_with_parent(options.parent)
    certificate = Certificate(options.certificate, options.key) if options.certificate else None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run_site(options.folder, options.port, certificate))


if __name__ == "__main__":
    main()

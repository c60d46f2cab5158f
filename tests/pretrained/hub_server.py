"""A hub on the loopback interface: the part of its HTTP protocol that fetching a model needs, and its misbehaviour."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".gguf")


class HubServer:
    """A server with one model; tests switch faults on by setting attributes."""

    def __init__(self, name: str, files: Mapping[str, bytes]) -> None:
        self.name, self.files = name, dict(files)
        self.requests: list[tuple[str, int]] = []
        """Files that were asked for, and from which byte on."""
        self.listed = 0
        self.cut = 0
        """How many of the next answers break off half way."""
        self.stall = ""
        """The file whose answers stop half way without closing the connection; `stalled` is set then."""
        self.stalled = threading.Event()
        self.wrong = False
        """Other bytes are sent than were listed."""
        self.refusal: tuple[int, str] | None = None
        """HTTP status and the hub's error code for everything."""
        self._released = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[HubServer]:
        """Serve until the block ends."""
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self._released.set()
            self._http.shutdown()
            self._http.server_close()

    def listing(self) -> dict[str, Any]:
        """Return what the hub says of the model."""
        siblings = [{"rfilename": name, "size": len(data), **_digests(name, data)} for name, data in self.files.items()]
        return {"id": self.name, "sha": COMMIT, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}

    def hold(self) -> None:
        """Keep an answer from going on."""
        self.stalled.set()
        self._released.wait()


def _digests(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if not name.endswith(LARGE):
        return {"blobId": blob}
    lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return {"blobId": hashlib.sha1(b"pointer").hexdigest(), "lfs": lfs}


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            if hub.refusal:
                self._answer(hub.refusal[0], b"{}", {"X-Error-Code": hub.refusal[1]})
            elif parts[:2] == ["api", "models"]:
                hub.listed += 1
                found = "/".join(parts[2:4]) == hub.name
                headers = {"Content-Type": "application/json"} if found else {"X-Error-Code": "RepoNotFound"}
                self._answer(200 if found else 404, json.dumps(hub.listing()).encode(), headers)
            else:
                assert parts[2:4] == ["resolve", COMMIT]
                self._send(parts[4])

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _send(self, name: str) -> None:
            data = hub.files[name]
            if hub.wrong:
                data = bytes([data[0] ^ 1]) + data[1:]
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            hub.requests.append((name, first))
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(data) - first))
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            broken = hub.stall == name or hub.cut > 0
            hub.cut -= hub.cut > 0
            self.wfile.write(data[first : first + (len(data) - first) // 2] if broken else data[first:])
            if hub.stall == name:
                self.wfile.flush()
                hub.hold()

    return Handler

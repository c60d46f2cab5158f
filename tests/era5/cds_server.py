"""A Climate Data Store on the loopback interface: the HTTP protocol of cdsapi 0.7.7, with tiny real files.

It answers what `ecmwf-datastores-client` asks: catalogue messages, a process, its execution, the job's status and
results, and the asset by HEAD, GET and byte range. Like the real one it wants `time`, refuses `valid_time`, refuses
what costs too much, and sends a ZIP where a request mixes instantaneous and accumulated variables.
"""

from __future__ import annotations

import io
import json
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tasks.era5.arco_names import ERA5_NAMES

TOKEN = "00000000-0000-0000-0000-000000000000"


def field(short: str, levels: int, times: int, rows: int, columns: int) -> np.ndarray:
    """Return the values that the server delivers for a variable: shape (time, level, latitude, longitude)."""
    values = np.arange(times * levels * rows * columns, dtype="f4").reshape(times, levels, rows, columns)
    return values + sum(map(ord, short))


class CdsServer:
    """The server and its misbehaviour, which tests switch on by setting attributes."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, dict[str, Any]]] = []
        """Data set and request of every execution that was accepted."""
        self.asset_gets = 0
        self.polls = 0
        self.statuses = ["successful"]
        """Answers to the polls of a job; the last one stays."""
        self.transient: list[int] = []
        """HTTP statuses with which the next requests fail."""
        self.refusal: tuple[int, str, str] | None = None
        """Status, title and detail with which executions are refused."""
        self.job_error: tuple[str, str] | None = None
        """Title and traceback of a job's failure."""
        self.content: bytes | None = None
        """What is sent in place of data."""
        self.asset_status: int | None = None
        """HTTP status with which downloads are refused."""
        self.cut_downloads = 0
        """How many of the next downloads break off half way."""
        self.wrong_size = False
        """The announced file size is not that of the file."""
        self.stalled = threading.Event()
        self.stall = False
        """Downloads stop half way without closing the connection; `stalled` is set then."""
        self.max_fields = 120_000
        self._assets: dict[str, bytes] = {}
        self._build = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/api"

    @contextmanager
    def running(self) -> Iterator[CdsServer]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of an API request."""
        if self.transient:
            return self.transient.pop(0), {"title": "try again"}
        if path == "/api/catalogue/v1/messages":
            return 200, {"messages": []}
        if token != TOKEN:
            return 401, {"title": "Authentication failed", "detail": "Invalid personal access token"}
        parts = path.removeprefix("/api/retrieve/v1/").split("/")
        match (method, *parts):
            case ("GET", "processes", dataset):
                return 200, {"id": dataset}
            case ("POST", "processes", dataset, "execution"):
                return self._execute(dataset, json.loads(body)["inputs"])
            case ("GET", "jobs", job):
                return self._poll(job)
            case ("GET", "jobs", job, "results"):
                return self._results(job)
        return 404, {"title": "Not Found"}

    def asset(self, path: str) -> bytes:
        """Return the file of a job."""
        return self._assets[path.split("/")[-1].removesuffix(".nc")] if self.content is None else self.content

    def _execute(self, dataset: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.refusal:
            status, title, detail = self.refusal
            return status, {"type": "permission denied", "title": title, "detail": detail}
        if "valid_time" in request or not request.get("time"):
            return 400, {"title": "invalid request", "detail": "Request has not produced a valid combination"}
        names = ("variable", "pressure_level", "year", "month", "day", "time")
        if int(np.prod([len(request.get(name, [0])) for name in names])) > self.max_fields:
            detail = "Your request is too large, please reduce your selection."
            return 403, {"title": "cost limits exceeded", "detail": detail}
        self.submitted.append((dataset, request))
        job = f"job-{len(self.submitted)}"
        with self._build:
            self._assets[job] = _deliver(request)
        self.polls = 0
        links = [{"rel": "monitor", "href": f"{self.url}/retrieve/v1/jobs/{job}"}]
        return 201, {"jobID": job, "processID": dataset, "status": "accepted", "links": links}

    def _poll(self, job: str) -> tuple[int, dict[str, Any]]:
        status = "failed" if self.job_error else self.statuses[min(self.polls, len(self.statuses) - 1)]
        self.polls += 1
        links = [{"rel": "results", "href": f"{self.url}/retrieve/v1/jobs/{job}/results"}]
        return 200, {"jobID": job, "status": status, "links": links}

    def _results(self, job: str) -> tuple[int, dict[str, Any]]:
        if self.job_error:
            return 400, {"title": self.job_error[0], "traceback": self.job_error[1]}
        href = f"{self.url.removesuffix('/api')}/cache/{job}.nc"
        size = len(self.asset(href)) + (7 if self.wrong_size else 0)
        return 200, {"asset": {"value": {"type": "application/netcdf", "href": href, "file:size": size}}}


def _handler(store: CdsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._api_or_asset()

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _api_or_asset(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/cache/"):
                return self._send_asset(path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, reply = store.answer(self.command, path, body, self.headers.get("PRIVATE-TOKEN"))
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return None

        def _send_asset(self, path: str) -> None:
            data = store.asset(path)
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.send_response(store.asset_status or (206 if first else 200))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - first))
            self.end_headers()
            if self.command == "HEAD":
                return
            store.asset_gets += 1
            broken = store.stall or store.cut_downloads > 0
            store.cut_downloads -= broken
            self.wfile.write(data[first : first + (len(data) - first) // 2] if broken else data[first:])
            if store.stall:
                self.wfile.flush()
                store.stalled.set()
                while store.stall:
                    time.sleep(0.05)

    return Handler


def _deliver(request: dict[str, Any]) -> bytes:
    """Return the file for a request: NetCDF, or a ZIP of two where it mixes step types."""
    names = [ERA5_NAMES[name] for name in request["variable"]]
    members = {
        f"data_stream-oper_stepType-{step}.nc": _netcdf(request, [n.short for n in names if n.step_type == step])
        for step in sorted({n.step_type for n in names})
    }
    if len(members) == 1:
        return next(iter(members.values()))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _netcdf(request: dict[str, Any], shorts: list[str]) -> bytes:
    month = f"{request['year'][0]}-{request['month'][0]}"
    times = [np.datetime64(f"{month}-{day}T{hour}", "ns") for day in request["day"] for hour in request["time"]]
    north, west, south, east = request.get("area", [90, 0, -90, 330])
    step = float(request.get("grid", "30/30").split("/")[0])
    coordinates: dict[str, Any] = {
        "valid_time": times,
        "pressure_level": [float(level) for level in request.get("pressure_level", [0])],
        "latitude": np.arange(north, south - step / 2, -step),
        "longitude": np.arange(west, east + step / 2, step),
    }
    sizes = [len(coordinates[name]) for name in ("pressure_level", "valid_time", "latitude", "longitude")]
    data = xr.Dataset({short: (tuple(coordinates), field(short, *sizes)) for short in shorts}, coordinates)
    if "pressure_level" not in request:
        data = data.isel(pressure_level=0, drop=True)
    data = data.assign_coords(expver=("valid_time", np.array(["0001"] * len(times), dtype=object)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.nc")
        data.to_netcdf(path, engine="netcdf4")
        return path.read_bytes()

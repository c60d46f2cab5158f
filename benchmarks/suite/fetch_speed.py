"""Fetching images into shards.

3000 URLs on one web site on this machine: 89 % photographs of about 160 kB (the shared ones where they are present,
else rendered scenes), 5 % missing, 2 % pages of text, 2 % cut off, 1 % two seconds late, 1 % opted out. Both sides get
two processes with 64 connections each, no retries, 500 images a shard, a shorter side of 256 pixels, JPEG of quality
95, and SHA-256. Each round is a new process; its start, its imports and its workers count. The web site's own CPU time
does not count, but it takes its share of the two cores from both.

Ours reads the list, gathers rows by image, vets addresses, decodes strictly, hashes perceptually too, checks what it
wrote and flushes to disk; its shards are the same bytes in every run. img2dataset runs as in its recipe for CC12M. With
https the certificate is signed by an authority of our own that is added to the system's bundle.
"""

from __future__ import annotations

import os
import shutil
import ssl
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.environment import PEERS, peer_python
from benchmarks.figure import Figure
from benchmarks.process import Program
from benchmarks.suite.loader_read import shared_photographs
from tasks.samples.site_process import Certificate, RunningSite, serve
from tasks.samples.website import Page, write_site

SHARD, WORKERS, CONNECTIONS = 500, 2, 64
MIX: list[tuple[str, int, dict[str, Any]]] = [
    ("ok", 89, {}),
    ("missing", 5, {"behaviour": "status", "status": 404}),
    ("text", 2, {"behaviour": "html"}),
    ("cut", 2, {"behaviour": "cut"}),
    ("late", 1, {"delay": 2.0}),
    ("opted_out", 1, {"headers": {"X-Robots-Tag": "noai"}}),
]
"""Kinds of pages, and how many of a hundred there are."""
Results = dict[str, list[dict[str, float]]]


def run(bench: Bench) -> list[Figure]:
    """Measure both over http and over https."""
    urls, rounds = (200, 1) if bench.quick else (3000, 3)
    site = bench.work / "site"
    stored = _make_site(site, urls)
    certificate, bundle = _certificate(bench.work)
    results: dict[str, Results] = {}
    for scheme, pem in (("http", None), ("https", certificate)):
        count = urls if scheme == "http" else urls // 2
        with serve(site, pem) as server:
            listed = _write_list(bench.work / f"{scheme}.tsv", server, count)
            bench.say(f"{rounds} rounds of {count} URLs over {scheme}")
            results[scheme] = interleave(rounds, _subjects(bench.work, listed, bundle))
        for name, answers in results[scheme].items():
            if any(abs(answer["stored"] - stored * count / urls) > 0.02 * urls for answer in answers):
                raise RuntimeError(f"{name} stored {answers} of {stored * count / urls:.0f} good images over {scheme}")
    detail = {"urls": urls, "workers": WORKERS, "connections": CONNECTIONS, "rounds": results}
    return [
        _figure(bench, detail, results["http"], "fetch_http_vs_img2dataset", "cpu", ">= 1.5", "http"),
        _figure(bench, detail, results["https"], "fetch_https_vs_img2dataset", "cpu", ">= 5", "https"),
        _figure(bench, detail, results["http"], "fetch_wall_vs_img2dataset", "wall", ">= 1.2", "http"),
    ]


def _make_site(folder: Path, urls: int) -> int:
    """Write a site of so many pages; return how many hold an image to be stored."""
    folder.mkdir()
    photographs = sorted(shared_photographs())
    images = [path.read_bytes() for path in photographs] or _scenes()
    for number, content in enumerate(images):
        (folder / f"{number}.jpg").write_bytes(content)
    kinds = [fields for _, share, fields in MIX for _ in range(share)]
    order = [(37 * number) % len(kinds) for number in range(urls)]  # 37 and 100 have no common factor: kinds are mixed
    pages = {
        f"/{number}.jpg": Page.model_validate({"file": f"{number % len(images)}.jpg", **kinds[kind]})
        for number, kind in enumerate(order)
    }
    write_site(folder, pages)
    return sum(page.behaviour == "ok" and not page.headers for page in pages.values())


def _scenes() -> list[bytes]:
    from tasks.samples.scene_drawing import draw_scene, encode
    from tasks.samples.scene_model import make_scene

    return [encode(draw_scene(make_scene(0, n), 0, n, 640), "jpeg") for n in range(50)]


def _write_list(path: Path, server: RunningSite, urls: int) -> Path:
    address = server.address.replace("127.0.0.1", "localhost")
    path.write_text("".join(f"{address}/{number}.jpg\ta caption of picture {number}\n" for number in range(urls)))
    return path


def _certificate(work: Path) -> tuple[Certificate, Path]:
    """Make a certificate for localhost; return it, and the system's authorities with its own one added."""
    certificate = Certificate(work / "site.pem", work / "site.key")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(
        [*command.split(), "-keyout", certificate.key, "-out", certificate.certificate], check=True, capture_output=True
    )
    known = ssl.get_default_verify_paths().cafile or ""
    bundle = work / "bundle.pem"
    bundle.write_bytes((Path(known).read_bytes() if known else b"") + certificate.certificate.read_bytes())
    return certificate, bundle


def _subjects(work: Path, listed: Path, bundle: Path) -> dict[str, Callable[[], dict[str, float]]]:
    named = work / f"named-{listed.name}"
    named.write_text("url\tcaption\n" + listed.read_text())  # img2dataset wants names of columns
    common = {"workers": WORKERS, "connections": CONNECTIONS, "shard": SHARD}

    def measure(program: str, folder: Path, python: Path | None, **arguments: Any) -> dict[str, float]:
        shutil.rmtree(folder, ignore_errors=True)
        os.environ["SSL_CERT_FILE"] = str(bundle)
        begin = time.perf_counter()
        with Program(program, {**common, **arguments}, python) as running:
            answer = running.answer()
        return {**answer, "wall": round(time.perf_counter() - begin, 3)}

    ours, theirs = work / "assets", work / "img2dataset"
    python = peer_python("img2dataset")
    return {
        "millrace": lambda: measure("fetch_millrace", ours, None, list=str(listed), root=str(ours)),
        "img2dataset": lambda: measure("fetch_img2dataset", theirs, python, list=str(named), output=str(theirs)),
    }


def _figure(
    bench: Bench, detail: dict[str, Any], results: Results, name: str, kind: str, aim: str, scheme: str
) -> Figure:
    rates = {who: [answer["stored"] / answer[kind] for answer in answers] for who, answers in results.items()}
    middle = {who: statistics.median(values) for who, values in rates.items()}
    unit = "images per CPU-second" if kind == "cpu" else "images per second"
    return bench.figure(
        name,
        what=f"Images fetched into shards over {scheme}, {unit.removeprefix('images ')}",
        value=rounded(median_ratio(rates["millrace"], rates["img2dataset"])),
        unit="x",
        aim=aim,
        peer=PEERS["img2dataset"].packages[0].replace("==", " "),
        peer_value=rounded(middle["img2dataset"]),
        peer_unit=unit,
        notes=(f"Millrace {middle['millrace']:.0f}, img2dataset {middle['img2dataset']:.0f} {unit}.",),
        detail=detail,
    )

"""The web site of samples: it serves files well, and every kind of misbehaviour is what it says, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.samples.site_process import Certificate, RunningSite, serve
from tasks.samples.website import Page, load_site, write_site
from tests.conftest import REPOSITORY
from tests.image_text.pictures import encoded, scenery

PICTURE = encoded(scenery(200, 150), quality=95)
PAGES = {
    "/good.jpg": Page(file="good.jpg"),
    "/labelled.jpg": Page(file="good.jpg", content_type="text/plain", headers={"X-Robots-Tag": "noai"}),
    "/gone": Page(behaviour="status", status=410),
    "/busy": Page(behaviour="status", status=429, retry_after="3600"),
    "/busy_until": Page(behaviour="status", status=503, retry_after="date"),
    "/flaky": Page(behaviour="flaky", status=503, failures=2, file="good.jpg"),
    "/hangs_up": Page(behaviour="flaky", status=0, failures=1, file="good.jpg"),
    "/reset": Page(behaviour="reset"),
    "/drip": Page(behaviour="drip", file="few.jpg"),
    "/late.jpg": Page(file="good.jpg", delay=0.2),
    "/truncated": Page(behaviour="truncated", file="good.jpg"),
    "/cut": Page(behaviour="cut", file="good.jpg"),
    "/html": Page(behaviour="html"),
    "/html.jpg": Page(behaviour="html", content_type="image/jpeg"),
    "/huge": Page(behaviour="huge", file="good.jpg"),
    "/endless": Page(behaviour="endless", file="good.jpg"),
    "/moved": Page(behaviour="redirect", location="http://127.0.0.1:1/x.jpg"),
    "/empty": Page(behaviour="empty"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("site")
    (place / "good.jpg").write_bytes(PICTURE)
    (place / "few.jpg").write_bytes(b"dripping")
    write_site(place, PAGES)
    return place


@pytest.fixture(scope="module")
def site(folder) -> Iterator[RunningSite]:
    with serve(folder) as running:
        yield running


@contextlib.contextmanager
def connected(site: RunningSite) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(site.host, site.port, timeout=20)
    with contextlib.closing(connection):
        yield connection


def get(site: RunningSite, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    """Return an answer and its whole body."""
    with connected(site) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer, answer.read()


def test_a_good_page_is_its_file_under_its_type(site):
    answer, body = get(site, "/good.jpg?size=large#top")
    assert (answer.status, answer.getheader("Content-Type"), body) == (200, "image/jpeg", PICTURE)
    answer, body = get(site, "/labelled.jpg")
    assert (answer.getheader("Content-Type"), answer.getheader("X-Robots-Tag")) == ("text/plain", "noai")
    assert body == PICTURE


def test_a_connection_serves_many_requests_even_when_they_come_at_once(site):
    with connected(site) as connection:
        for path in ["/good.jpg", "/gone", "/html", "/empty", "/moved", "/good.jpg"]:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert connection.sock is not None, f"{path} ended the connection"
    request = b"GET %b HTTP/1.1\r\nHost: pictures.test\r\n\r\n"
    with socket.create_connection((site.host, site.port), timeout=20) as raw:
        raw.sendall(b"".join(request % path for path in (b"/late.jpg", b"/drip", b"/moved", b"/cut")))
        received = b"".join(iter(lambda: raw.recv(2**16), b""))
    wanted = [PICTURE, b"dripping", b"Location: ", PICTURE[: len(PICTURE) // 2]]
    places = [received.index(part) for part in wanted[:3]] + [received.rindex(wanted[3])]
    assert places == sorted(places), "answers come in the order of their requests"
    assert received.count(b"HTTP/1.1 200") == 3


def test_failures_have_their_status_and_say_when_to_come_again(site):
    assert get(site, "/gone")[0].status == 410
    assert get(site, "/nowhere")[0].status == 404
    answer, _ = get(site, "/busy")
    assert (answer.status, answer.getheader("Retry-After")) == (429, "3600")
    answer, _ = get(site, "/busy_until")
    until = parsedate_to_datetime(answer.getheader("Retry-After"))
    assert timedelta(0) < until - datetime.now(UTC) <= timedelta(seconds=2)


def test_flaky_pages_fail_as_often_as_they_say_in_every_run(folder):
    for _ in range(2):
        with serve(folder) as site:
            assert [get(site, "/flaky")[0].status for _ in range(4)] == [503, 503, 200, 200]
            with pytest.raises(ConnectionResetError):
                get(site, "/hangs_up")
            assert get(site, "/hangs_up")[1] == PICTURE
            with socket.create_connection((site.host, site.port), timeout=20) as raw:
                raw.sendall(b"GET /reset HTTP/1.1\r\nHost: pictures.test\r\n\r\n")
                with pytest.raises(ConnectionResetError):
                    raw.recv(1)
            assert site.requests() == {"/flaky": 4, "/hangs_up": 2, "/reset": 1}


def test_a_drip_is_whole_and_comes_byte_by_byte(site):
    with connected(site) as connection:
        connection.request("GET", "/drip")
        answer = connection.getresponse()
        pieces = list(iter(lambda: answer.read1(100), b""))
        assert b"".join(pieces) == b"dripping"
        assert len(pieces) > 4, "no read waits for long, and the whole does"
        answer.close()
        connection.request("GET", "/good.jpg")
        assert connection.getresponse().read() == PICTURE


def test_truncated_bodies_show_and_cut_ones_do_not(site):
    with pytest.raises(http.client.IncompleteRead) as short:
        get(site, "/truncated")
    assert (len(short.value.partial), short.value.expected) == (len(PICTURE) // 2, len(PICTURE) - len(PICTURE) // 2)
    answer, body = get(site, "/cut")
    assert (answer.status, answer.getheader("Content-Length")) == (200, None)
    assert body == PICTURE[: len(PICTURE) // 2]


def test_pages_of_text_come_under_any_type(site):
    for path, kind in [("/html", "text/html"), ("/html.jpg", "image/jpeg")]:
        answer, body = get(site, path)
        assert (answer.status, answer.getheader("Content-Type")) == (200, kind)
        assert body.startswith(b"<!doctype html>")
    answer, body = get(site, "/empty")
    assert (answer.status, body) == (200, b"")


@pytest.mark.parametrize(("path", "promised"), [("/huge", str(2**40)), ("/endless", None)])
def test_floods_send_more_than_anyone_wants_and_end_with_their_reader(site, path, promised):
    with connected(site) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.getheader("Content-Length") == promised
        assert len(answer.read(30_000_000)) == 30_000_000
    assert get(site, "/good.jpg")[1] == PICTURE


def test_a_flood_waits_for_its_reader(folder):
    import psutil

    with serve(folder) as site, connected(site) as connection:
        process = max(psutil.Process().children(), key=psutil.Process.create_time)
        before = process.memory_info().rss
        connection.request("GET", "/endless")
        connection.getresponse().read(1000)
        with connected(site) as other:
            for _ in range(1000):
                other.request("GET", "/html")
                other.getresponse().read()
        assert process.memory_info().rss - before < 20e6


def test_redirects_name_their_goal(site):
    answer, _ = get(site, "/moved")
    assert (answer.status, answer.getheader("Location")) == (302, "http://127.0.0.1:1/x.jpg")


def test_the_site_counts_what_it_was_asked_for(folder):
    with serve(folder) as site:
        assert site.requests() == {}
        for path in ["/good.jpg", "/good.jpg?again", "/nowhere"]:
            get(site, path)
        assert site.requests() == {"/good.jpg": 2, "/nowhere": 1}


def test_https_serves_the_same(folder, tmp_path):
    certificate = self_signed(tmp_path)
    with serve(folder, certificate) as site:
        context = ssl.create_default_context(cafile=str(certificate.certificate))
        connection = http.client.HTTPSConnection(site.host, site.port, context=context, timeout=20)
        with contextlib.closing(connection):
            for _ in range(2):
                connection.request("GET", "/good.jpg")
                assert connection.getresponse().read() == PICTURE
            connection.request("GET", "/reset")
            with pytest.raises((ConnectionError, ssl.SSLError)):
                connection.getresponse()
        assert site.requests() == {"/good.jpg": 2, "/reset": 1}


def self_signed(folder: Path) -> Certificate:
    """Write a certificate for 127.0.0.1 that vouches for itself."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pictures.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files = Certificate(folder / "certificate.pem", folder / "key.pem")
    files.certificate.write_bytes(certificate.public_bytes(pem))
    files.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return files


def test_the_list_of_pages_comes_back_and_knows_no_other_words(folder, tmp_path):
    assert load_site(folder) == PAGES
    listing = (folder / "site.json").read_bytes()
    write_site(tmp_path, dict(reversed(PAGES.items())))
    assert (tmp_path / "site.json").read_bytes() == listing, "the order of pages makes no difference"
    with pytest.raises(ValidationError):
        Page(behaviour="sings")


def test_the_site_ends_with_whoever_started_it(folder):
    program = f"""
import os, pathlib
from tasks.samples.site_process import serve
with serve(pathlib.Path({str(folder)!r})) as site:
    print(site.port, flush=True)
    os.kill(os.getpid(), 9)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
    port = int(run.stdout)
    attempts = (refused(port) or time.sleep(0.05) for _ in range(400))
    assert any(attempts), "the site outlives its parent"


def refused(port: int) -> bool:
    """Return whether nobody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_folder_without_a_site_says_so(tmp_path, capfd):
    with pytest.raises(RuntimeError, match="did not start"), serve(tmp_path):
        pass
    assert "site.json" in capfd.readouterr().err

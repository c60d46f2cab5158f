"""One image from the web: vetted addresses, bounded in time and bytes, redirects checked hop by hop."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from configs.image_text import Crawling, Fetching
from tasks.image_text.addresses import (
    Endpoint,
    PrivateAddressError,
    VettingResolver,
    is_disguised,
    is_literal,
    is_public,
)

AGENT = "millrace"
REDIRECTS = (301, 302, 303, 307, 308)
OPTED_OUT = {"noai", "noimageai", "noindex", "noimageindex", "none"}
ROBOTS_WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
TRANSIENT = frozenset({"timeout", "dns", "connect", "http_429", "http_5xx", "short_body"})
"""Failures that another attempt may mend."""
RESOLVER_THREADS = 64
KEEP_ALIVE = 2.0
"""Seconds that an idle connection waits for its host's next image; lists name so many hosts that more would pile up."""
CHUNK = 2**18
PACKED = ("gzip", "x-gzip", "deflate")
"""Content encodings that are unpacked though no encoding was asked for."""
ZLIB_WINDOWS = (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS)
"""How zlib is told to expect a header of gzip or its own, and none, as some servers send `deflate`."""


class FetchError(Exception):
    """A URL that yielded no bytes, with the status that says why."""

    def __init__(self, status: str, detail: str = "", *, http_status: int = 0, pause: float | None = None) -> None:
        super().__init__(status, detail)
        self.status, self.detail, self.http_status = status, detail, http_status
        self.pause = pause
        """Seconds that the server asks to wait."""


class Fetcher:
    """Fetches URLs on the running event loop; an async context. One TLS context and one pool serve all of them."""

    def __init__(self, rules: Fetching, crawling: Crawling, hosts: Mapping[str, Endpoint]) -> None:
        self._rules = rules
        self._largest = int(rules.max_megabytes * 1e6)
        self._hosts = hosts
        self._agent = f"{AGENT}/0.1 (builds image-text datasets{'; ' if crawling.contact else ''}{crawling.contact})"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(RESOLVER_THREADS, "resolver"))
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=ssl.create_default_context(),
            resolver=VettingResolver(private=self._rules.private_addresses, hosts=self._hosts),
            ttl_dns_cache=600,
            keepalive_timeout=KEEP_ALIVE,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
            read_bufsize=CHUNK,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, url: str) -> bytes:
        """Return the body behind a URL, in one attempt; `FetchError` where there is none to be had.

        Texts of errors hold no addresses or times, so that equal answers leave equal records.
        """
        try:
            async with asyncio.timeout(self._rules.deadline_seconds):
                return await self._follow(URL(url))
        except TimeoutError:
            raise FetchError("timeout", f"not whole within {self._rules.deadline_seconds:g} s") from None
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, PrivateAddressError):
                raise FetchError("private_address", str(error.os_error)) from None
            raise FetchError("dns", "the name is not known") from None
        except aiohttp.ClientSSLError as error:
            raise FetchError("tls", type(error).__name__) from None
        except aiohttp.ClientPayloadError:
            raise FetchError("short_body", "ended before it was whole") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError, ValueError):
            raise FetchError("bad_url", "is no URL to fetch") from None
        except (aiohttp.ClientError, OSError) as error:
            raise FetchError("connect", type(error).__name__) from None

    async def _follow(self, url: URL) -> bytes:
        """Go from hop to hop, each vetted like the first."""
        self._vet(url, "bad_url")
        for _ in range(self._rules.redirects + 1):
            async with self._session.get(url, allow_redirects=False) as response:
                location = response.headers.get("Location")
                if response.status not in REDIRECTS or not location:
                    return await self._read(response)
            target = url.join(URL(location))
            self._vet(target, "redirect_blocked")
            if url.scheme == "https" and target.scheme == "http":
                raise FetchError("redirect_blocked", "from https to http")
            url = target
        raise FetchError("redirect_blocked", f"more than {self._rules.redirects} redirects")

    def _vet(self, url: URL, status: str) -> None:
        if url.scheme not in ("http", "https") or not url.host:
            raise FetchError(status, f"leads to {url.scheme or 'no'}: which is not fetched")
        if is_disguised(url.host):
            raise FetchError("bad_url", f"{url.host} is an IPv4 address in another spelling than four decimal numbers")
        if is_literal(url.host) and not self._rules.private_addresses and not is_public(url.host):
            raise FetchError("private_address", f"{url.host} is no public address")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != 200:
            raise _refusal(response)
        if self._rules.opt_out and opted_out(response.headers.getall("X-Robots-Tag", [])):
            raise FetchError("robots_optout", "X-Robots-Tag", http_status=200)
        if (response.content_length or 0) > self._largest:
            raise FetchError("too_big", f"more than {self._rules.max_megabytes:g} MB", http_status=200)
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity", *PACKED):
            raise FetchError("not_image", "sent in a Content-Encoding that nobody asked for", http_status=200)
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._largest:
                raise FetchError("too_big", f"more than {self._rules.max_megabytes:g} MB", http_status=200)
        return self._unpacked(b"".join(chunks)) if encoding in PACKED else b"".join(chunks)

    def _unpacked(self, body: bytes) -> bytes:
        """Return a body that came packed unasked; of servers that only say so it is as it came."""
        for window in ZLIB_WINDOWS:
            unpack = zlib.decompressobj(window)
            try:
                found = unpack.decompress(body, self._largest + 1)
            except zlib.error:
                continue
            if len(found) > self._largest:
                raise FetchError("too_big", f"more than {self._rules.max_megabytes:g} MB", http_status=200)
            if not unpack.eof:
                raise FetchError("short_body", "ended before it was whole", http_status=200)
            return found
        return body


def opted_out(headers: list[str]) -> bool:
    """Whether X-Robots-Tag headers forbid use; directives after another agent's name are not meant for us."""
    for header in headers:
        meant = True
        for directive in header.lower().split(","):
            agent, colon, rest = directive.partition(":")
            if colon and agent.strip() not in ROBOTS_WITH_VALUE:
                meant, directive = agent.strip() == AGENT, rest
            if meant and directive.strip() in OPTED_OUT:
                return True
    return False


def _refusal(response: aiohttp.ClientResponse) -> FetchError:
    code = response.status
    family = f"http_{code}" if code in (403, 404, 410, 429) else "http_5xx" if code >= 500 else "http_4xx"
    return FetchError(family, http_status=code, pause=retry_after(response.headers.get("Retry-After", "")))


def retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or a date; None when it says nothing."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None

"""Many images from the web at once: hosts in turn, retries with growing pauses, and bodies handed on as they come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from configs.image_text import Crawling, Fetching
from tasks.image_text.addresses import Endpoint
from tasks.image_text.fetch import TRANSIENT, Fetcher, FetchError
from tasks.image_text.hosts import HostQueues


@dataclass(frozen=True, slots=True)
class Target:
    """An image to fetch, by its position in the shard."""

    position: int
    url: str
    failures: int = 0


async def crawl(
    targets: Sequence[Target],
    rules: Fetching,
    crawling: Crawling,
    hosts: Mapping[str, Endpoint],
    *,
    accept: Callable[[Target, bytes], Awaitable[None]],
    refuse: Callable[[Target, FetchError], None],
) -> None:
    """Fetch every target; each goes to `accept` with its body, or to `refuse` with the failure that was its last.

    As many bodies are in memory as there are connections: the next one is asked for when one has been accepted.
    """
    if not targets:
        return
    queues: HostQueues[Target] = HostQueues(crawling.per_host)
    for target in targets:
        queues.put(_host(target.url), target)

    async def work(fetcher: Fetcher) -> None:
        while (turn := await queues.get()) is not None:
            host, target = turn
            try:
                body = await fetcher.get(target.url)
            except FetchError as error:
                pause = pause_before_retry(error, target.failures, rules)
                if pause is None:
                    refuse(target, error)
                    queues.done(host)
                else:
                    failed = replace(target, failures=target.failures + 1)
                    spread = random.uniform(1.0, 1.25)  # so that those who failed together do not return together
                    queues.again(host, failed, pause * spread, whole_host=error.pause is not None)
            else:
                queues.done(host)
                await accept(target, body)

    async with Fetcher(rules, crawling, hosts) as fetcher, asyncio.TaskGroup() as group:
        for _ in range(min(crawling.connections, len(targets))):
            group.create_task(work(fetcher))


def pause_before_retry(error: FetchError, failures: int, rules: Fetching) -> float | None:
    """Return the seconds to wait before another attempt, after so many earlier failures; None when there is none."""
    if error.status not in TRANSIENT or failures >= rules.retries:
        return None
    pause = max(rules.backoff_seconds * 2**failures, error.pause or 0.0)
    return pause if pause <= max(rules.longest_pause_seconds, rules.backoff_seconds) else None


def _host(url: str) -> str:
    """Return the host of a URL, as a name to queue under."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""

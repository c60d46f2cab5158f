"""The order of requests: every job once, no host crowded, none that asked for a pause disturbed."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.image_text.hosts import HostQueues


@settings(deadline=None, max_examples=40)
@given(
    hosts=st.lists(st.sampled_from("abcd"), min_size=1, max_size=40),
    per_host=st.integers(1, 3),
    workers=st.integers(1, 6),
    data=st.data(),
)
def test_every_job_is_done_once_and_no_host_is_crowded(hosts, per_host, workers, data):
    failing = Counter({n: data.draw(st.integers(0, 2)) for n in range(0, len(hosts), 3)})

    async def run() -> tuple[list[int], int]:
        queues: HostQueues[int] = HostQueues(per_host)
        for number, host in enumerate(hosts):
            queues.put(host, number)
        finished, flying, most = [], Counter(), 0

        async def work() -> None:
            nonlocal most
            while (turn := await queues.get()) is not None:
                host, job = turn
                flying[host] += 1
                most = max(most, flying[host])
                await asyncio.sleep(0)
                flying[host] -= 1
                if failing[job] > 0:
                    failing[job] -= 1
                    queues.again(host, job, 0.001, whole_host=job % 2 == 0)
                else:
                    finished.append(job)
                    queues.done(host)

        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(workers))), 20)
        return finished, most

    finished, most = asyncio.run(run())
    assert sorted(finished) == list(range(len(hosts)))
    assert most <= per_host


def test_a_paused_host_gets_no_request_while_others_go_on():
    async def run() -> list[str]:
        queues: HostQueues[str] = HostQueues(per_host=2)
        for job in ("a1", "a2", "a3", "b1", "b2", "b3"):
            queues.put(job[0], job)
        host, job = await queues.get() or ("", "")
        queues.again(host, job, 0.2, whole_host=True)
        order = []
        while (turn := await queues.get()) is not None:
            order.append(turn[1])
            queues.done(turn[0])
        return order

    order = asyncio.run(run())
    assert order[:3] == ["b1", "b2", "b3"]
    assert sorted(order[3:]) == ["a1", "a2", "a3"]

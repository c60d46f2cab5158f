"""What frozen encoders see of things, where several pipelines ask at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tasks.showing import seen_of


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_what_is_seen_at_once_is_seen_on_one_thread_which_is_given_back(two_threads):
    """The number of threads is the whole process's, so of two calls none may begin before the other has ended."""
    inside, most = [], []
    meet = threading.Event()

    def see(places):
        inside.append(places)
        most.append(len(inside))
        meet.wait(0.2)
        assert torch.get_num_threads() == 1
        inside.pop()
        return torch.tensor(places)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda places: seen_of(see, places, 2), [[0, 1, 2], [3, 4]])
    assert (first.tolist(), second.tolist()) == ([0, 1, 2], [3, 4])
    assert max(most) == 1
    assert torch.get_num_threads() == 2

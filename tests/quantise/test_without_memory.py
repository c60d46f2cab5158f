"""Modules without memory are those of the thread that asked for them, and of no other."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from tasks.quantise.packing import without_memory

REGISTER = nn.Module.register_parameter


class Rotated(nn.Module):
    """A layer with everything that a module may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.frozen.note = "kept"
        self.register_parameter("absent", None)
        self.register_buffer("angles", torch.arange(3.0), persistent=False)


def test_parameters_take_no_memory_and_buffers_are_as_ever():
    with without_memory():
        made = Rotated()
    assert {name: parameter.is_meta for name, parameter in made.named_parameters()} == {
        "linear.weight": True, "linear.bias": True, "frozen": True
    }  # fmt: skip
    assert (made.frozen.requires_grad, made.frozen.note, made.linear.weight.requires_grad) == (False, "kept", True)
    assert made.absent is None
    assert made.angles.tolist() == [0, 1, 2]
    assert not any(parameter.is_meta for parameter in Rotated().parameters())


def test_what_other_threads_make_meanwhile_has_its_weights():
    made: list[nn.Module] = []
    with without_memory():
        other = threading.Thread(target=lambda: made.append(nn.Linear(3, 2)))
        other.start()
        other.join()
        assert nn.Linear(3, 2).weight.is_meta
    assert not made[0].weight.is_meta


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_overlapping_threads_leave_nothing_behind(first_ends_first):
    """With one global patch within another, the one that is taken back last would put the other's in its place."""
    inside, leave = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
    found: dict[int, tuple[bool, bool]] = {}

    def work(number: int) -> None:
        with without_memory():
            inside[number].set()
            assert leave[number].wait(60)
            within = nn.Linear(3, 2).weight.is_meta
        found[number] = within, nn.Linear(3, 2).weight.is_meta

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for number, thread in enumerate(threads):
        thread.start()
        assert inside[number].wait(60)
    for number in (0, 1) if first_ends_first else (1, 0):
        leave[number].set()
        threads[number].join()
    assert found == {0: (True, False), 1: (True, False)}
    assert nn.Module.register_parameter is REGISTER


def test_a_block_within_a_block_of_a_thread_and_an_error_in_it_leave_nothing_behind():
    def fail_within() -> None:
        with without_memory():
            with without_memory():
                pass
            assert nn.Linear(3, 2).weight.is_meta, "the outer one is not over"
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert nn.Module.register_parameter is REGISTER

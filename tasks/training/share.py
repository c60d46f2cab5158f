"""A rank's share: its place among the ranks, its device, and the few ways in which ranks talk to each other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from configs.training import Execution
from tasks.units import cores


class Share:
    """The place of this process among the ranks of a training. Alone, every exchange returns what it is given."""

    def __init__(
        self, rank: int = 0, world_size: int = 1, device: str | torch.device = "cpu", loader_workers: int = 0
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self.device = torch.device(device)
        self.loader_workers = loader_workers

    @classmethod
    def join(cls, execution: Execution) -> Self:
        """Take the device and join the other ranks; torchrun says which rank this is."""
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        device = _device(execution, local_rank)
        torch.set_num_threads(execution.threads or max(1, cores() // world_size))
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.backends.cudnn.allow_tf32 = False  # or convolutions in fp32 have ten bits of mantissa
        if world_size > 1:
            # small vectors travel on the CPU, so that they need not wait for the GPU's queue
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        return cls(rank, world_size, device, execution.loader_workers)

    @staticmethod
    def device_of(execution: Execution) -> torch.device:
        """Return the device of a process that works alone."""
        return _device(execution, 0)

    def machine(self) -> dict[str, str]:
        """Return what the bits of a training depend on besides its configuration and the versions of software."""
        if self.device.type == "cuda":
            device = torch.cuda.get_device_properties(self.device)
            about = {
                "gpu": device.name,
                "capability": f"{device.major}.{device.minor}",
                "cuda": str(torch.version.cuda),
            }
        else:
            about = {"cpu": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads())}
        return {**about, "ranks": str(self.world_size), "torch": torch.__version__}

    def leave(self) -> None:
        """Part from the other ranks."""
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes files."""
        return self.rank == 0

    def mine(self, n: int) -> range:
        """Return this rank's consecutive part of range(n); the parts differ by one element at most."""
        return range(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)

    def sum(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all ranks, in place, and return it."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_numbers(self, values: Sequence[float]) -> list[float]:
        """Add numbers up over all ranks, which give equally many; no GPU has a part in it."""
        if self.world_size == 1:
            return list(values)
        return self.sum(torch.tensor(values, dtype=torch.float64)).tolist()

    def gather(self, rows: Tensor) -> Tensor:
        """Return all ranks' rows (first dimension, as many as each has) in rank order, on every rank."""
        if self.world_size == 1:
            return rows
        counts = torch.zeros(self.world_size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        most = int(self.sum(counts).max())
        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])

    def lead(self, values: Sequence[float]) -> list[float]:
        """Return rank 0's numbers on every rank; all ranks give equally many."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(tensor, 0)
        return tensor.tolist()

    def lead_metrics(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return rank 0's metrics on every rank, so that all decide alike."""
        names = sorted(metrics)
        return dict(zip(names, self.lead([float(metrics[name]) for name in names]), strict=True))

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.world_size > 1:
            dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        """Return all ranks' rows."""
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        """Return what all ranks' losses say of this rank's rows."""
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather_with_gradient(rows: Tensor) -> tuple[Tensor, slice]:
    """Return all ranks' rows (first dimension, equally many), and which of them are this rank's.

    Gradient of every rank's loss reaches the rank whose rows they are, summed, as the loop sums it for parameters.
    """
    if not dist.is_initialized():
        return rows, slice(0, len(rows))
    gathered: Tensor = _Gather.apply(rows)
    return gathered, slice(dist.get_rank() * len(rows), (dist.get_rank() + 1) * len(rows))


def _device(execution: Execution, local_rank: int) -> torch.device:
    count = torch.cuda.device_count() if execution.device != "cpu" else 0
    if execution.device == "cuda" and not count:
        raise ValueError("execution.device is cuda, but there is no usable GPU here; set it to auto or cpu")
    if count and count < execution.ranks:
        raise ValueError(
            f"execution.ranks is {execution.ranks}, but there are {count} GPUs here; each rank needs one of its own"
        )
    return torch.device("cuda", local_rank) if count else torch.device("cpu")

"""A device that is none: the CPU computes on its tensors, yet they may meet other tensors no more than a GPU's may.

torch lets a program add a device of its own (`PrivateUse1`). This one keeps every tensor as a plain one. It refuses
what a GPU refuses: an operation on tensors of both devices, other than a copy, an index or a number; and `numpy()`.
A process that imports this has the device for good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
COPIES = ("aten::copy_", "aten::_to_copy", "aten::_copy_from")
BY_INDEX = ("aten::index.", "aten::index_put", "aten::_index_put_impl_", "aten::_unsafe_index")
"""Operations that may be given indices of the CPU."""


class _Stream:
    def wait_stream(self, other: Any) -> None: ...

    def synchronize(self) -> None: ...


class _Module:
    """What torch asks about a device, there as `torch.pretend`."""

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def current_stream(self, device: Any = None) -> _Stream:
        return _Stream()

    def stream(self, stream: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def manual_seed_all(self, seed: int) -> None: ...

    def _is_in_bad_fork(self) -> bool:
        return False


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
DEVICE = torch.device(NAME, 0)
torch.__future__.set_swap_module_params_on_conversion(True)  # weights that are shared stay so on their way


class Remote(Tensor):
    """A tensor on the device."""

    kept: Tensor

    @staticmethod
    def __new__(cls, kept: Tensor) -> Remote:
        made: Remote = Tensor._make_wrapper_subclass(
            cls, kept.shape, kept.stride(), kept.storage_offset(), dtype=kept.dtype, device=DEVICE
        )
        made.kept = kept
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.kept.tolist()

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["kept"], None

    @staticmethod
    def __tensor_unflatten__(inner: Mapping[str, Tensor], *_: Any) -> Remote:
        return Remote(inner["kept"])


class Pretending(TorchDispatchMode):
    """While it is entered, tensors can be made on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return _run(func, args, kwargs) if _is_ours(kwargs.get("device")) else func(*args, **kwargs)


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an operation of torch on the tensors that are kept; `RuntimeError` where devices meet."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    remote = [x for x in tensors if isinstance(x, Remote)]
    name, device = func.name(), kwargs.get("device")
    if remote and not name.startswith((*COPIES, *BY_INDEX)):
        strangers = [tuple(x.shape) for x in tensors if not isinstance(x, Remote) and x.ndim]
        if strangers:
            raise RuntimeError(f"{name} was given tensors of the CPU, of shape {strangers}, beside those of {DEVICE}")
    if _is_ours(device):
        kwargs = kwargs | {"device": torch.device("cpu")}
    found = func(*tree_map(_kept, args), **tree_map(_kept, kwargs))
    goes_to_cpu = device is not None and not _is_ours(device)
    into_cpu = name.startswith("aten::copy_") and not isinstance(args[0], Remote)
    if goes_to_cpu or into_cpu:
        return found
    return return_and_correct_aliasing(func, args, kwargs, tree_map(_remote, found))


def _kept(value: Any) -> Any:
    return value.kept if isinstance(value, Remote) else value


def _remote(value: Any) -> Any:
    return Remote(value) if isinstance(value, Tensor) else value


def _runner(operation: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: _run(operation, args, kwargs)


_LIBRARY = torch.library.Library("aten", "IMPL")  # `torch.tensor` asks no mode
_LIBRARY.impl("empty_strided", _runner(torch.ops.aten.empty_strided.default), "PrivateUse1")
_LIBRARY.impl("copy_", _runner(torch.ops.aten.copy_.default), "PrivateUse1")

"""The NetCDF files behind sources, of which few are open at a time."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
from numpy.typing import NDArray

from storage.files import unreadable
from storage.raw import Stamp, require_unchanged
from tasks.era5.catalog import Variable
from tasks.era5.netcdf import NETCDF_LOCK, Decoder, UnusableError, decoder, open_netcdf, read_box
from tasks.era5.timeline import Source

_OPEN_FILES = 32


@dataclass(frozen=True, slots=True)
class _OpenFile:
    dataset: netCDF4.Dataset
    decoders: dict[str, Decoder]


class SourceFiles:
    """Reads sources by the paths of their contents; opening a file costs as much as reading hundreds of small planes.

    Any thread may read. Files stay open until others take their places, or until `close`.
    """

    def __init__(self, paths: Mapping[str, Path], stamps: Mapping[str, Stamp | None] | None = None) -> None:
        self._paths = paths
        self._stamps = stamps or {}
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()

    def read(self, source: Source, facts: Variable, selection: Mapping[str, slice]) -> NDArray[np.float32]:
        """Return decoded values (steps, levels, rows, columns) in stored orientation; see `read_box` for `selection`.

        `ValueError` names the file where it cannot be read, or is no longer the one that was hashed.
        """
        with _naming(source.name, facts.name), NETCDF_LOCK:
            file = self._opened(source.member.sha256)
            variable = file.dataset.variables[facts.name_in_file]
            if facts.name not in file.decoders:
                file.decoders[facts.name] = decoder(variable)
                if facts.chunks:
                    variable.set_var_chunk_cache(0)  # every chunk is read once
            decode = file.decoders[facts.name]
            stored = read_box(variable, facts.dimensions, selection)
            require_unchanged(self._paths[source.member.sha256], self._stamps.get(source.member.sha256))
        return decode(stored)

    def close(self) -> None:
        """Close every file; the next read opens its own again."""
        with NETCDF_LOCK:
            while self._open:
                self._close_oldest()

    def _opened(self, sha256: str) -> _OpenFile:
        if sha256 not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self._close_oldest()
            self._open[sha256] = _OpenFile(open_netcdf(self._paths[sha256]), {})
        self._open.move_to_end(sha256)
        return self._open[sha256]

    def _close_oldest(self) -> None:
        _, file = self._open.popitem(last=False)
        file.dataset.close()


@contextlib.contextmanager
def _naming(source: str, variable: str) -> Iterator[None]:
    try:
        yield
    except UnusableError as error:
        raise ValueError(f"{source} {error}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{source} is no longer at {error.filename}; put it back or run again") from error
    except PermissionError as error:
        raise ValueError(f"{source} {unreadable(error)}") from error
    except (OSError, RuntimeError, LookupError) as error:
        raise ValueError(
            f"{source}: {variable} cannot be read ({error}); the file is damaged, download it again"
        ) from error

"""ZIP archives of raw files, as the Climate Data Store serves them: unpacked within bounds, member by member."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from storage.files import fsync
from tasks.era5.netcdf import UnusableError, sniff

MAX_INFLATION = 200
"""A ZIP member that grows more than this, and beyond a megabyte, is refused."""


class BadMemberError(Exception):
    """A member of an archive that cannot be unpacked; the message is a predicate."""


def unpack(path: Path, extract_to: Path) -> Iterator[tuple[str, Path | UnusableError | BadMemberError]]:
    """Yield each member's printable name and its unpacked file, or why it is not NetCDF or cannot be unpacked."""
    extract_to.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            # `is_dir` of Python 3.11 fails at a name without letters
            infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
            _require_bounded(infos, shutil.disk_usage(extract_to).free)
            for info in infos:
                yield _printable(info.filename), _unpack_member(archive, info, extract_to)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise UnusableError(f"is a damaged or cut-off ZIP archive ({error}); download it again") from error


def _require_bounded(infos: list[zipfile.ZipInfo], free: int) -> None:
    for info in infos:
        if info.file_size > max(MAX_INFLATION * info.compress_size, 2**20):
            raise UnusableError(
                f"is a ZIP archive whose member {_printable(info.filename)} grows from {info.compress_size:,} to "
                f"{info.file_size:,} bytes; that is not weather data, download it again"
            )
    needed = sum(info.file_size for info in infos)
    if needed > free:
        raise UnusableError(f"is a ZIP archive that needs {needed:,} bytes unpacked, and {free:,} are free")


def _unpack_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path
) -> Path | UnusableError | BadMemberError:
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    sha256 = hashlib.sha256()
    try:
        with archive.open(info) as source, temporary.open("wb") as target:
            while block := source.read(1 << 20):
                sha256.update(block)
                target.write(block)
        if sniff(temporary) == "zip":
            return UnusableError("is a ZIP archive itself; unpack it")
        fsync(temporary)
        return temporary.replace(folder / f"{sha256.hexdigest()}.nc")
    except UnusableError as error:
        return error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        return BadMemberError(f"is damaged or cut off ({error}); download it again")
    except (NotImplementedError, RuntimeError, MemoryError) as error:  # unknown compression, encryption
        return BadMemberError(f"cannot be unpacked ({error}); unpack it by other means")
    finally:
        temporary.unlink(missing_ok=True)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[-100:]) or "without a name"

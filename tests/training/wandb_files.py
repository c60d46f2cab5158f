"""Reading what W&B writes offline; the package has no reader of its own in Python any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def wandb_records(path: Path) -> list[Any]:
    """Read a run's file: blocks of 32 KiB with records in W&B's protobuf, in the log format of LevelDB."""
    from wandb.proto import wandb_internal_pb2

    data, records, place, body = path.read_bytes(), [], 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        body += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(body))
            body = b""
    return records

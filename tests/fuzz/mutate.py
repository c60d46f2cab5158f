"""Changes to good input: of bytes, of texts, and of JSON; all are functions of the random numbers that they get."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

INTEGERS = (0, 1, 2, 3, 4, 7, 8, 13, 16, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 2**24, 2**30, 2**31 - 1,
            2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, -1, -2, -128, -32768, -(2**31), -(2**63))  # fmt: skip
NUMBERS = ("0", "-0", "1", "-1", "0.5", "1e3", "1e-320", "1e999", "-1e999", "nan", "NaN", "inf", "-inf", "٣", "²",
           "½", "１２", "1_0", "0x10", "1,5", "1.234,5", "999", "-9999", "9" * 20, "1" * 400, "+5", "5.",
           ".", "1 000", "10 km/h", "VRB", "True", "None", "null", "1e", "--1", "1;2")  # fmt: skip
WORDS = ("", " ", "\t", "\0", "\ufeff", "\r", "\n", "\r\n", '"', '""', "'", "\\", ",", ";", "|", "\u2028", "\x1b[31m",
         "\ud7ff", "\uffff", "🔥", "é", "../../../etc/passwd", "/etc/passwd", "~", "$HOME", "%s%n", "{}", "a" * 300,
         "https://example.org/a.jpg", "http://[::1", "http://", "HTTPS://EXAMPLE.org", "ftp://x", "https://ex\0ample",
         "2024-01-01", "2024-02-30", "0000-00-00", "9999-12-31T23:59-23:59", "2024-01-01T00:00:00Z", "1e5-01-01",
         "[]", "{}", '{"a":', "[USER]", "jpg", "json", "txt", "NaN")  # fmt: skip
BYTES = (b"\0", b"\xff", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\0\0", b"\x1f\x8b", b"PK\3\4", b"\r",
         b"\n",
         b'"', b"\xc3", b"\xed\xa0\x80", b"\0" * 64, b"\xff" * 16, b"\x80")  # fmt: skip


def some(random: Random, most: int = 5) -> range:
    """Return how often to do something: once most often."""
    return range(1 + min(most - 1, int(random.expovariate(0.8))))


def number(random: Random) -> int:
    """Return a whole number at which programs break."""
    return random.choice(INTEGERS) + random.choice((0, 0, 0, 1, -1))


def packed(random: Random, form: str) -> bytes:
    """Return such a number in a form of `struct`, its high bits cut off."""
    size = struct.calcsize(form)
    value = (number(random) if random.random() < 0.7 else random.getrandbits(8 * size)) % 256**size
    return value.to_bytes(size, "big" if form[0] == ">" else "little")


def mutate_bytes(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return bytes with a few changes; parts may come from others."""
    found = bytearray(data)
    for _ in some(random):
        random.choice(_CHANGES)(random, found, others)
    return bytes(found)


def _place(random: Random, data: bytearray) -> int:
    """Return a place, often near the beginning, where headers are, or the end."""
    size = len(data)
    chance = random.random()
    if chance < 0.4:
        return random.randrange(min(size, 64) + 1)
    return size - random.randrange(min(size, 64) + 1) if chance < 0.5 else random.randrange(size + 1)


def _part(random: Random, data: bytearray) -> slice:
    start = _place(random, data)
    return slice(start, min(len(data), start + random.choice((1, 2, 4, 8, 16, 64, 512))))


def _flip(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[min(_place(random, data), len(data) - 1)] ^= 1 << random.randrange(8)


def _integer(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    written = packed(random, random.choice(("B", "<H", ">H", "<I", ">I", "<Q", ">Q")))
    start = _place(random, data)
    data[start : start + len(written)] = written


def _delete(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_part(random, data)]


def _repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    part = _part(random, data)
    data[part.stop : part.stop] = bytes(data[part]) * random.choice((1, 1, 2, 16))


def _insert(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = _place(random, data)
    data[start:start] = random.choice((*BYTES, random.randbytes(8)))


def _overwrite(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    part = _part(random, data)
    data[part] = random.choice((bytes, random.randbytes))(part.stop - part.start)


def _cut(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_place(random, data) :]


def _splice(random: Random, data: bytearray, others: Sequence[bytes]) -> None:
    if others:
        other = bytearray(random.choice(others))
        data[_part(random, data)] = other[_part(random, other)]


def _swap(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    one, two = _part(random, data), _part(random, data)
    first, second = bytes(data[one]), bytes(data[two])
    data[one] = second
    data[two] = first


_CHANGES: tuple[Callable[[Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip, _flip, _integer, _integer, _delete, _repeat, _insert, _overwrite, _cut, _splice, _swap,
)  # fmt: skip


def mutate_text(random: Random, text: str, separators: str = ",") -> bytes:
    """Return a table as bytes, with changes to cells, lines, or its encoding."""
    lines = text.split("\n")
    for _ in some(random, 4):
        _change_lines(random, lines, separators)
    changed = random.choice(("\n", "\n", "\n", "\n", "\r\n", "\r")).join(lines)
    encoding = random.choice(("utf-8",) * 12 + ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"))
    data = changed.encode(encoding, "replace")
    return mutate_bytes(random, data) if random.random() < 0.3 else data


def _change_lines(random: Random, lines: list[str], separators: str) -> None:
    at = random.randrange(len(lines)) if lines else 0
    if not lines or random.random() < 0.1:
        lines.insert(at, random.choice(WORDS))
        return
    chance = random.random()
    if chance < 0.1:
        del lines[at]
    elif chance < 0.2:
        lines.insert(random.randrange(len(lines) + 1), lines[at])
    elif chance < 0.25:
        other = random.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif chance < 0.3:
        lines[:] = [line.replace(separators[0], random.choice(";|\t ,")) for line in lines]
    else:
        lines[at] = _change_cells(random, lines[at], separators)


def _change_cells(random: Random, line: str, separators: str) -> str:
    separator = random.choice(separators)
    cells = line.split(separator)
    at = random.randrange(len(cells))
    chance = random.random()
    if chance < 0.5:
        cells[at] = random.choice(random.choice((NUMBERS, WORDS)))
    elif chance < 0.6:
        cells[at] += random.choice((*WORDS, "a" * random.choice((1, 1000, 140_000))))
    elif chance < 0.7:
        cells[at] = f'"{cells[at]}"' if random.random() < 0.7 else f'"{cells[at]}'
    elif chance < 0.8:
        cells.insert(at, random.choice(WORDS))
    elif chance < 0.9:
        del cells[at]
    else:
        cells[at] = dumped(random, mutate_json(random, [cells[at], {"region": "x", "description": cells[at]}]))
    return separator.join(cells)


def odd(random: Random) -> Any:
    """Return a value for JSON that nobody expects."""
    return random.choice((
        None, True, False, "", [], {}, 0, -1, 0.5, 1e308, float("nan"), float("inf"), 2**63, -(2**70), 10**400,
        "\ud800",
        random.choice(WORDS), random.choice(NUMBERS), number(random), [None], [[]], {"": None}, _deep(random),
        "a" * 3000,
        list(range(50)),
    ))  # fmt: skip


def _deep(random: Random) -> Any:
    value: Any = 1
    for _ in range(random.choice((3, 40))):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


def mutate_json(random: Random, value: T) -> T:
    """Return JSON with a few other values, names, or entries; what was given stays as it is."""
    root: list[Any] = [json.loads(json.dumps(value))]
    for _ in some(random):
        _change_node(random, *random.choice(list(_nodes(root))))
    return root[0] if root else odd(random)


def _nodes(value: Any) -> Any:
    """Yield every container with each of its places."""
    places = list(value) if isinstance(value, dict) else range(len(value))
    for place in places:
        yield value, place
        if isinstance(value[place], dict | list) and value[place]:
            yield from _nodes(value[place])
    if not places:
        yield value, None


def _change_node(random: Random, container: Any, place: Any) -> None:
    chance = random.random()
    if place is None:
        return
    if isinstance(container[place], str) and chance < 0.3:
        word = random.choice(WORDS)
        container[place] = random.choice((word, container[place] + word, word + container[place]))
    elif chance < 0.6:
        container[place] = odd(random)
    elif chance < 0.7 and isinstance(container[place], int | float) and not isinstance(container[place], bool):
        container[place] = random.choice((str, float, lambda v: -v, lambda v: v + 1, lambda v: [v]))(container[place])
    elif chance < 0.8 and len(container) > 1:
        del container[place]
    elif isinstance(container, dict):
        container[random.choice((*container, *WORDS))] = container[place]
    else:
        container.insert(place, container[place])


def dumped(random: Random, value: Any) -> str:
    """Return JSON as text; seldom what is none, or has a name twice."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.9)
    chance = random.random()
    if chance < 0.02:
        return "[" * random.choice((50, 5000, 200_000)) + text
    if chance < 0.06 and text.startswith("{") and len(text) > 2:
        return text[:-1] + "," + text[1:]
    return text


def json_bytes(random: Random, value: Any) -> bytes:
    """Return such a text as bytes, seldom with changes to them."""
    data = dumped(random, value).encode("utf-8", "surrogatepass")
    return mutate_bytes(random, data) if random.random() < 0.1 else data

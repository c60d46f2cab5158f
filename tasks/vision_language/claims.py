"""What a text claims about a picture of coloured shapes, and whether that is so.

The words are those of plain English for what the generated scenes hold; a test compares them with the generator's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Kind = Literal["count", "colour", "shape", "relation"]
KINDS: tuple[Kind, ...] = ("count", "colour", "shape", "relation")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "black", "brown", "turquoise")
NAMES = {
    "circle": ("circle", "disc"), "square": ("square",), "triangle": ("triangle",), "star": ("star",),
    "ring": ("ring",), "heart": ("heart",), "cross": ("cross", "plus sign"), "diamond": ("diamond", "rhombus"),
}  # fmt: skip
"""Names of every shape."""
LOOKS = ("small", "little", "large", "big", "striped", "dotted", "spotted", "checkered", "chequered")
"""What may stand between a number and a colour."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
SIDES = {
    "to the left of": ("column", True), "left of": ("column", True), "further left than": ("column", True),
    "to the right of": ("column", False), "further right than": ("column", False),
    "above": ("row", True), "higher up than": ("row", True), "below": ("row", False), "lower down than": ("row", False),
}  # fmt: skip
"""How two things lie to each other: on which axis, and whether the first has the smaller place."""


class Thing(NamedTuple):
    """A shape in a picture; columns from the left, rows from the top."""

    shape: str
    colour: str
    column: int
    row: int


Things = Sequence[Thing]


def things_of(scene: Mapping[str, Any]) -> Things:
    """Return the things of a scene, of which the generated data has the facts."""
    return [Thing(*(thing[field] for field in Thing._fields)) for thing in scene["things"]]


def plural(noun: str) -> str:
    """Return `stars`, `crosses`."""
    return f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"


NOUNS = {noun: shape for shape, names in NAMES.items() for name in names for noun in (name, plural(name))}
_NOUN = "|".join(sorted(NOUNS, key=len, reverse=True))
_COUNT = "|".join((*NUMBERS[1:], "an", "a", r"\d+"))
_GROUP = re.compile(rf"\b({_COUNT}) (?:(?:{'|'.join(LOOKS)}) )*({'|'.join(COLOURS)}) ({_NOUN})\b")
_ONE = rf"(?:({'|'.join(COLOURS)}) )?({_NOUN})"
_RELATION = re.compile(rf"\bthe {_ONE} is ({'|'.join(SIDES)}) the {_ONE}\b")


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a text says of a scene, and whether it is so."""

    kind: Kind
    right: bool


def claims(text: str, things: Things) -> Iterator[Claim]:
    """Yield what a text claims: how many there are of a colour and a shape, that the shape is there, that it is there
    in this colour, and how two things lie to each other.
    """
    lowered = text.lower()
    for number, colour, noun in _GROUP.findall(lowered):
        shape = NOUNS[noun]
        yield Claim("shape", _count(things, shape) > 0)
        yield Claim("colour", _count(things, shape, colour) > 0)
        yield Claim("count", _count(things, shape, colour) == _value(number))
    for one_colour, one, side, other_colour, other in _RELATION.findall(lowered):
        axis, first = SIDES[side]
        pairs = [
            getattr(a, axis) < getattr(b, axis) if first else getattr(a, axis) > getattr(b, axis)
            for a in _those(things, one_colour, one)
            for b in _those(things, other_colour, other)
            if a is not b
        ]
        yield Claim("relation", any(pairs))


def named(text: str, things: Things) -> tuple[int, int]:
    """Return how many of a scene's groups of things of one shape and colour a text counts rightly, of how many."""
    said = {(NOUNS[noun], colour, _value(number)) for number, colour, noun in _GROUP.findall(text.lower())}
    there = {(t.shape, t.colour, _count(things, t.shape, t.colour)) for t in things}
    return len(said & there), len(there)


def _value(number: str) -> int:
    if number in ("a", "an"):
        return 1
    return int(number) if number.isdigit() else NUMBERS.index(number)


def _those(things: Things, colour: str, noun: str) -> list[Thing]:
    shape = NOUNS[noun]
    return [thing for thing in things if thing.shape == shape and colour in ("", thing.colour)]


def _count(things: Things, shape: str, colour: str = "") -> int:
    return sum(thing.shape == shape and colour in ("", thing.colour) for thing in things)

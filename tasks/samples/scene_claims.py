"""What a text claims about a scene, and whether that is so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.samples.scene_model import COLOURS, SHAPES, Digit, Scene, Thing
from tasks.samples.scene_texts import ABOVE, LEFT
from tasks.samples.scene_words import NAMES, NUMBERS, plural

Kind = Literal["count", "colour", "shape", "relation"]
KINDS: tuple[Kind, ...] = ("count", "colour", "shape", "relation")


def _names() -> dict[str, tuple[str, bool]]:
    """Return every noun with its shape, and whether it is a plural."""
    found: dict[str, tuple[str, bool]] = {}
    for shape in SHAPES:
        for name in NAMES.get(shape, (shape,)):
            found |= {name: (shape, False), plural(name): (shape, True)}
    return found


NOUNS = _names()
_NOUN = "|".join(sorted(NOUNS, key=len, reverse=True))
_COUNT = "|".join((*NUMBERS[1:], "an", "a", r"\d+"))
_GROUP = re.compile(rf"\b({_COUNT}) (?:[a-z]+ ){{0,3}}?({'|'.join(COLOURS)}) ({_NOUN})\b")
_SIDES = {words: (axis, first) for axis, said in (("column", LEFT), ("row", ABOVE))
          for first, several in said.items() for words in several}  # fmt: skip
_ONE = rf"(?:({'|'.join(COLOURS)}) )?({_NOUN})"
_RELATION = re.compile(rf"\bthe {_ONE} is ({'|'.join(map(re.escape, _SIDES))}) the {_ONE}\b")


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that a text says of a scene, and whether it is so."""

    kind: Kind
    right: bool


def claims(text: str, scene: Scene) -> Iterator[Claim]:
    """Yield what a text claims: how many there are of a colour and a shape, that the shape is there, that it is there
    in this colour, and how two things lie to each other.
    """
    lowered = text.lower()
    for number, colour, noun in _GROUP.findall(lowered):
        shape, _ = NOUNS[noun]
        yield Claim("shape", scene.count(shape=shape) > 0)
        yield Claim("colour", scene.count(shape=shape, colour=colour) > 0)
        yield Claim("count", scene.count(shape=shape, colour=colour) == _value(number))
    for one_colour, one, side, other_colour, other in _RELATION.findall(lowered):
        axis, first = _SIDES[side]
        pairs = [
            getattr(a, axis) < getattr(b, axis) if first else getattr(a, axis) > getattr(b, axis)
            for a in _those(scene, one_colour, one)
            for b in _those(scene, other_colour, other)
            if a is not b
        ]
        yield Claim("relation", any(pairs))


def named(text: str, scene: Scene) -> tuple[int, int]:
    """Return how many of a scene's groups of things of one shape and colour a text counts rightly, of how many."""
    said = {(NOUNS[noun][0], colour, _value(number)) for number, colour, noun in _GROUP.findall(text.lower())}
    there = {(t.shape, t.colour, scene.count(shape=t.shape, colour=t.colour)) for t in scene.things}
    return len(said & there), len(there)


def _value(number: str) -> int:
    if number in ("a", "an"):
        return 1
    return int(number) if number.isdigit() else NUMBERS.index(number)


def _those(scene: Scene, colour: str, noun: str) -> list[Thing]:
    shape, _ = NOUNS[noun]
    return [thing for thing in scene.things if thing.shape == shape and colour in ("", thing.colour)]


def scene_of(facts: Mapping[str, Any]) -> Scene:
    """Return the scene of which `as_json` was kept."""
    digit = Digit(**facts["digit"]) if facts["digit"] else None
    return Scene(tuple(Thing(**thing) for thing in facts["things"]), digit, facts["ground"], facts["aspect"])

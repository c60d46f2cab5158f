"""What a scene holds: a few things on a grid, and perhaps a digit; all of it follows from two numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "ring", "heart", "cross", "diamond")
COLOURS = {
    "red": (205, 35, 40), "green": (35, 140, 60), "blue": (35, 75, 200), "yellow": (235, 200, 30),
    "orange": (240, 125, 20), "purple": (125, 50, 165), "pink": (240, 120, 175), "black": (25, 25, 28),
    "brown": (120, 75, 40), "turquoise": (35, 180, 185),
}  # fmt: skip
PATTERNS = ("plain", "striped", "dotted", "checkered")
SIZES = ("small", "large")
GROUNDS = ("clouded", "graded", "speckled")
GRID = 3
ASPECTS = (1.0, 1.0, 4 / 3, 3 / 2, 3 / 4, 16 / 9)
"""Width by height, as often as they stand here."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape in a cell of the grid; columns from the left, rows from the top."""

    shape: str
    colour: str
    pattern: str
    size: str
    column: int
    row: int


@dataclass(frozen=True, slots=True)
class Digit:
    """A written digit in a cell of the grid."""

    value: int
    colour: str
    column: int
    row: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Things, perhaps a digit, what lies behind them, and the format of the picture."""

    things: tuple[Thing, ...]
    digit: Digit | None
    ground: str
    aspect: float

    def as_json(self) -> dict[str, Any]:
        """Return the scene as plain values."""
        return asdict(self)

    def count(self, **wanted: str) -> int:
        """Return how many things have these properties; `scene.count(shape="star", colour="red")`."""
        return sum(all(getattr(thing, name) == value for name, value in wanted.items()) for thing in self.things)

    @property
    def parts(self) -> list[Thing | Digit]:
        """Everything that is drawn."""
        return [*self.things, self.digit] if self.digit else list(self.things)

    @property
    def colourless(self) -> bool:
        """Whether everything is black, so that grey shades show it truly."""
        return all(part.colour == "black" for part in self.parts)

    def unique(self) -> list[Thing]:
        """Return the things whose shape no other has."""
        return [thing for thing in self.things if self.count(shape=thing.shape) == 1]


def scene_random(seed: int, index: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one scene for one purpose, independent of all others."""
    return np.random.default_rng([seed, index, purpose])


def make_scene(seed: int, index: int) -> Scene:
    """Compose a scene: one thing, two different ones, a group of equal ones, several kinds, or things and a digit."""
    random = scene_random(seed, index, 0)
    cells = [divmod(int(cell), GRID) for cell in random.permutation(GRID * GRID)]
    kind = random.choice(["single", "pair", "group", "mixed", "digit"], p=[0.1, 0.25, 0.3, 0.2, 0.15])
    if kind == "group":
        looks = [_look(random)] * int(random.integers(2, 6))
        if random.random() < 0.6:
            looks.append(_look(random, without=looks))
    else:
        looks = []
        for _ in range({"single": 1, "pair": 2, "mixed": int(random.integers(3, 5)), "digit": 1}[kind]):
            looks.append(_look(random, without=looks))
    things = [Thing(*look, column=column, row=row) for look, (row, column) in zip(looks, cells, strict=False)]
    row, column = cells[len(things)]
    digit = Digit(int(random.integers(10)), _pick(random, list(COLOURS)), column, row) if kind == "digit" else None
    return Scene(tuple(things), digit, _pick(random, GROUNDS), ASPECTS[int(random.integers(len(ASPECTS)))])


def _look(random: np.random.Generator, without: Sequence[tuple[str, ...]] = ()) -> tuple[str, str, str, str]:
    """Return shape, colour, pattern and size; shape and colour of none of the others."""
    shape = _pick(random, [s for s in SHAPES if s not in {look[0] for look in without}])
    colour = _pick(random, [c for c in COLOURS if c not in {look[1] for look in without}])
    pattern = _pick(random, PATTERNS) if random.random() < 0.5 else PATTERNS[0]
    return shape, colour, pattern, _pick(random, SIZES)


def _pick(random: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(random.integers(len(options)))]

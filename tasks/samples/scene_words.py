"""The words in which scenes are spoken of: names, numbers, places, and phrases made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.samples.scene_model import Scene, Thing

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")
NAMES = {"circle": ("circle", "disc"), "cross": ("cross", "plus sign"), "diamond": ("diamond", "rhombus")}
"""Names of shapes that have more than one."""
PLURALS = {"cross": "crosses", "rhombus": "rhombuses"}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
PATTERN_WORDS = {"striped": ("striped",), "dotted": ("dotted", "spotted"), "checkered": ("checkered", "chequered")}
PATTERN_PHRASES = {"striped": "with stripes", "dotted": "with dots", "checkered": "with a checkered pattern"}


def choose(random: np.random.Generator, options: Sequence[str]) -> str:
    """Return one of the options."""
    return options[int(random.integers(len(options)))]


def position(column: int, row: int) -> str:
    """Return a cell of the grid in words.

    >>> position(0, 0)
    'top left'
    """
    return "centre" if (column, row) == (1, 1) else f"{ROWS[row]} {COLUMNS[column]}"


def plural(shape: str) -> str:
    """Return the name of several equal shapes."""
    return PLURALS.get(shape, f"{shape}s")


def with_article(words: str) -> str:
    """Return `an orange star`, `a red star`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def listed(words: Sequence[str]) -> str:
    """Return `one, two and three`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def sentence(words: str) -> str:
    """Return words with a capital at the start."""
    return words[:1].upper() + words[1:]


def groups(scene: Scene) -> list[list[Thing]]:
    """Return things that look alike together, in the order in which they come."""
    alike: dict[tuple[str, str], list[Thing]] = {}
    for thing in scene.things:
        alike.setdefault((thing.shape, thing.colour), []).append(thing)
    return list(alike.values())


def name_of(shape: str, count: int, random: np.random.Generator) -> str:
    """Return a name of one shape, or of several."""
    name = choose(random, NAMES.get(shape, (shape,)))
    return name if count == 1 else plural(name)


def noun(group: Sequence[Thing], random: np.random.Generator, detail: float) -> str:
    """Return `a small striped red star` or `3 red stars with dots`; `detail` is the probability of each adjective."""
    first, count = group[0], len(group)
    adjectives, after = [], ""
    if random.random() < detail:
        adjectives.append(choose(random, SIZE_WORDS[first.size]))
    if first.pattern != "plain" and random.random() < detail:
        if random.random() < 0.7:
            adjectives.append(choose(random, PATTERN_WORDS[first.pattern]))
        else:
            after = f" {PATTERN_PHRASES[first.pattern]}"
    words = " ".join([*adjectives, first.colour, name_of(first.shape, count, random)]) + after
    if count == 1:
        return with_article(words)
    return f"{NUMBERS[count] if random.random() < 0.8 else count} {words}"


def digit_noun(scene: Scene, random: np.random.Generator) -> list[str]:
    """Return words for the digit, in a list that is empty where there is none."""
    if scene.digit is None:
        return []
    forms = ("the digit {0} in {1}", "the number {0}, written in {1}", "a {1} digit {0}", "a {1} number {0}")
    words = choose(random, forms).format(scene.digit.value, scene.digit.colour)
    return [words.replace("a orange", "an orange")]

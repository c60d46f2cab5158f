"""Captions of scenes, short and long, in varied words that are all true."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from tasks.samples.scene_model import GRID, SHAPES, Scene, Thing, scene_random
from tasks.samples.scene_words import (
    COLUMNS,
    NUMBERS,
    PATTERN_PHRASES,
    PATTERN_WORDS,
    ROWS,
    SIZE_WORDS,
    choose,
    digit_noun,
    groups,
    listed,
    name_of,
    noun,
    plural,
    position,
    sentence,
    with_article,
)

OPENINGS = (
    "A picture of {}.", "An image that shows {}.", "{} on a pale background.", "Here we see {}.", "{}.",
    "Drawn on a light ground: {}.", "There {verb} {}.", "A simple drawing with {}.", "In this picture you can see {}.",
    "Illustration of {}.", "A graphic with {} on a light backdrop.", "This drawing contains {}.", "Clip art: {}.",
    "{} in front of a pale backdrop.", "Geometric art featuring {}.",
)  # fmt: skip
BEGINNINGS = (
    "The image shows {} on a pale background.", "This is a drawing of {} on a light ground.",
    "What we have here is a picture with {}.", "In this illustration there {verb} {}.",
)  # fmt: skip
INVENTORIES = ("In detail, it holds {}.", "One can make out {}.", "Its contents are {}.", "Looking closer, I see {}.")
WHERE = (
    "The {} is in the {}.", "The {} sits in the {}.", "The {} can be found in the {}.",
    "You will find the {} in the {} of the picture.", "The {} has been placed in the {}.",
)  # fmt: skip
LEFT = {True: ("to the left of", "left of", "further left than"), False: ("to the right of", "further right than")}
ABOVE = {True: ("above", "higher up than"), False: ("below", "lower down than")}
GROUND_WORDS = {
    "clouded": ("softly clouded", "pale and cloudy"),
    "graded": ("a pale gradient", "a smooth, light gradient"),
    "speckled": ("pale and finely speckled", "light and a little grainy"),
}
EXTRAS = (0.35, 0.35, 0.2, 0.1)
"""How often a short caption has none, one, two or three sentences after its first."""
LONG = (42, 95)
"""Words that a long caption is to reach; it ends with the sentence that reaches them."""


def short_caption(scene: Scene, seed: int, index: int) -> str:
    """Return one to four sentences that are true of a scene; `index` chooses the words."""
    random = scene_random(seed, index, 3)
    said = [_inventory(scene, choose(random, OPENINGS), random, detail=0.5)]
    more = _remarks(scene, random)
    return " ".join(said + more[: int(random.choice(len(EXTRAS), p=EXTRAS))])


def long_caption(scene: Scene, seed: int, index: int) -> str:
    """Return a description that says what there is, where it is, how it looks and how things lie to each other."""
    random = scene_random(seed, index, 4)
    total = len(scene.things)
    count = "a single shape" if total == 1 else f"{NUMBERS[total]} shapes"
    beginning = choose(random, BEGINNINGS).format(count, verb="is" if total == 1 else "are")
    said = [beginning, _inventory(scene, choose(random, INVENTORIES), random, detail=1)]
    enough = int(random.integers(*LONG))
    for remark in _remarks(scene, random) + _absences(scene, random):
        if sum(len(words.split()) for words in said) >= enough:
            break
        said.append(remark)
    return " ".join(said)


def _inventory(scene: Scene, form: str, random: np.random.Generator, detail: float) -> str:
    """Say everything that there is."""
    alike = groups(scene)
    order = random.permutation(len(alike))
    nouns = [noun(alike[k], random, detail) for k in order] + digit_noun(scene, random)
    verb = "are" if len(alike[order[0]]) > 1 else "is"
    return sentence(form.format(listed(nouns), verb=verb))


def _remarks(scene: Scene, random: np.random.Generator) -> list[str]:
    """Return what else can be said of what is there, in any order."""
    remarks = [
        *_positions(scene, random),
        *_looks(scene, random),
        *_relations(scene, random),
        *_alike(scene, random),
        *_digit(scene, random),
        f"The background is {choose(random, GROUND_WORDS[scene.ground])}.",
    ]
    return [remarks[k] for k in random.permutation(len(remarks))]


def _definite(thing: Thing, random: np.random.Generator) -> str:
    """Return what names a thing whose shape no other has: `red star`, `star`."""
    name = name_of(thing.shape, 1, random)
    return f"{thing.colour} {name}" if random.random() < 0.6 else name


def _positions(scene: Scene, random: np.random.Generator) -> list[str]:
    return [
        choose(random, WHERE).format(_definite(thing, random), position(thing.column, thing.row))
        for thing in scene.unique()
    ]


def _looks(scene: Scene, random: np.random.Generator) -> list[str]:
    return [f"The {_definite(thing, random)} is {_look(thing, random)}." for thing in scene.unique()]


def _look(thing: Thing, random: np.random.Generator) -> str:
    size = choose(random, SIZE_WORDS[thing.size])
    if thing.pattern == "plain":
        return f"{size} and {choose(random, ('has no pattern', 'plain'))}"
    if random.random() < 0.5:
        return f"{size} and {choose(random, PATTERN_WORDS[thing.pattern])}"
    return f"{size}, {PATTERN_PHRASES[thing.pattern]}"


def _relations(scene: Scene, random: np.random.Generator) -> list[str]:
    """Say how two unmistakable things lie to each other, and what is between two others."""
    said = []
    unique = scene.unique()
    for one, other in permutations(unique, 2):
        a, b = _definite(one, random), _definite(other, random)
        if one.column != other.column:
            said.append(f"The {a} is {choose(random, LEFT[one.column < other.column])} the {b}.")
        if one.row != other.row:
            said.append(f"The {a} is {choose(random, ABOVE[one.row < other.row])} the {b}.")
    kept = [said[k] for k in random.permutation(len(said))[:4]]
    for one, middle, other in permutations(unique, 3):
        if is_between(one, middle, other):
            names = [_definite(thing, random) for thing in (middle, one, other)]
            kept.append("The {} is between the {} and the {}.".format(*names))
    return kept


def is_between(one: Thing, middle: Thing, other: Thing) -> bool:
    """Return whether three things lie on a row from left to right, or in a column from the top down."""
    columns, rows = ([getattr(thing, axis) for thing in (one, middle, other)] for axis in ("column", "row"))
    straight = list(range(GRID))
    return (columns == straight and len(set(rows)) == 1) or (rows == straight and len(set(columns)) == 1)


def _alike(scene: Scene, random: np.random.Generator) -> list[str]:
    """Say what several equal things have in common."""
    said = []
    for group in groups(scene):
        if len(group) == 1:
            continue
        name = f"{group[0].colour} {name_of(group[0].shape, len(group), random)}"
        said.append(f"All of the {name} look alike.")
        if len({thing.row for thing in group}) == 1:
            said.append(f"The {name} stand side by side in the {ROWS[group[0].row]} row.")
        if len({thing.column for thing in group}) == 1:
            said.append(f"The {name} are in the {COLUMNS[group[0].column]} column, one above the other.")
    return said


def _digit(scene: Scene, random: np.random.Generator) -> list[str]:
    if scene.digit is None:
        return []
    value, where = scene.digit.value, position(scene.digit.column, scene.digit.row)
    forms = ("The digit is in the {1}.", "The number {0} is written in the {1}.", "In the {1} it says {0}.")
    return [choose(random, forms).format(value, where)]


def _absences(scene: Scene, random: np.random.Generator) -> list[str]:
    """Say what there is not, in any order."""
    empty = [name for k, name in enumerate(ROWS) if all(part.row != k for part in scene.parts)]
    absent = [shape for shape in SHAPES if not scene.count(shape=shape)]
    said = [f"The {name} row of the picture is empty." for name in empty]
    said += [f"No {plural(shape)} appear in it." for shape in absent[:2]]
    said += [f"There is not {with_article(shape)} anywhere." for shape in absent[-2:]]
    if scene.digit is None:
        said.append("Nothing is written on it.")
    return [said[k] for k in random.permutation(len(said))]

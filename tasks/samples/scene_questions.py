"""Questions about scenes, each with one right, short answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.samples.scene_model import COLOURS, SHAPES, Scene, Thing, scene_random
from tasks.samples.scene_words import choose, plural, position, with_article

MOST = 7
HOW_MANY = ("How many {} are there?", "What is the number of {}?", "How many {} can you see?")
IS_THERE = ("Is there {}?", "Can you see {}?", "Does the image show {}?")


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene and its only right answer."""

    question: str
    answer: str


def questions(scene: Scene, seed: int, index: int) -> list[Question]:
    """Return up to `MOST` questions of the kinds that the scene allows; yes and no are balanced."""
    random = scene_random(seed, index, 5)
    asked = [question for kind in KINDS for question in kind(scene, random)]
    kept = sorted(random.permutation(len(asked))[:MOST])
    return [asked[k] for k in kept]


def _how_many(scene: Scene, random: np.random.Generator) -> list[Question]:
    thing = _any(scene.things, random)
    form, kind = choose(random, HOW_MANY), random.random()
    if kind < 0.2:
        return [Question(form.format("shapes"), str(len(scene.things)))]
    if kind < 0.4:
        return [Question(form.format(f"{thing.colour} shapes"), str(scene.count(colour=thing.colour)))]
    if kind < 0.6:
        return [Question(form.format(plural(thing.shape)), str(scene.count(shape=thing.shape)))]
    colour = _another(list(COLOURS), thing.colour, random) if kind < 0.7 else thing.colour
    count = scene.count(shape=thing.shape, colour=colour)
    return [Question(form.format(f"{colour} {plural(thing.shape)}"), str(count))]


def _is_there(scene: Scene, random: np.random.Generator) -> list[Question]:
    """Ask for something that is there, or as often for something near to it that is not."""
    thing = _any(scene.things, random)
    colour, shape = thing.colour, thing.shape
    if absent := random.random() < 0.5:
        while scene.count(colour=colour, shape=shape):
            if random.random() < 0.5:
                colour = _another(list(COLOURS), thing.colour, random)
            else:
                shape = _another(SHAPES, thing.shape, random)
    asked = choose(random, IS_THERE).format(with_article(f"{colour} {shape}"))
    return [Question(asked, _yes(not absent))]


def _colour(scene: Scene, random: np.random.Generator) -> list[Question]:
    thing = _any(scene.things, random)
    if scene.count(shape=thing.shape) > 1:
        return [Question(f"What colour are the {plural(thing.shape)}?", thing.colour)]
    forms = ("What colour is the {}?", "Which colour does the {} have?")
    return [Question(choose(random, forms).format(thing.shape), thing.colour)]


def _shape(scene: Scene, random: np.random.Generator) -> list[Question]:
    thing = _any(scene.things, random)
    if random.random() < 0.5 and scene.count(colour=thing.colour) == 1:
        return [Question(f"Which shape is {thing.colour}?", thing.shape)]
    return [Question(f"Which shape is in the {position(thing.column, thing.row)}?", thing.shape)]


def _look(scene: Scene, random: np.random.Generator) -> list[Question]:
    """Ask where a thing is that no other can be mistaken for, and what it looks like."""
    unique = scene.unique()
    if not unique:
        return []
    one, other = _any(unique, random), _any(unique, random)
    return [
        Question(f"Where in the image is the {one.shape}?", position(one.column, one.row)),
        Question(f"Is the {one.shape} plain, striped, dotted or checkered?", one.pattern),
        Question(f"Is the {other.shape} small or large?", other.size),
    ]


def _relation(scene: Scene, random: np.random.Generator) -> list[Question]:
    """Ask how two such things lie to each other; with yes or no, and with one of them for an answer."""
    unique = scene.unique()
    if len(unique) < 2:
        return []
    one, other = (unique[k] for k in random.permutation(len(unique))[:2])
    across = one.column != other.column and (one.row == other.row or random.random() < 0.5)
    words, more = ("to the left of", "further to the left") if across else ("above", "higher up")
    before = one.column < other.column if across else one.row < other.row
    first, second = (one, other) if before == (random.random() < 0.5) else (other, one)
    return [
        Question(f"Is the {first.shape} {words} the {second.shape}?", _yes((first is one) == before)),
        Question(
            f"Which is {more}, the {one.shape} or the {other.shape}?", one.shape if before else other.shape
        ),
    ]  # fmt: skip


def _digit(scene: Scene, random: np.random.Generator) -> list[Question]:
    if scene.digit is None:
        return []
    value, right = scene.digit.value, bool(random.random() < 0.5)
    named = value if right else (value + int(random.integers(1, 10))) % 10
    return [
        Question(choose(random, ("Which digit is written in the image?", "What number can be read?")), str(value)),
        Question("What colour is the digit?", scene.digit.colour),
        Question(f"Is the number {named} written in the image?", _yes(right)),
    ]


KINDS: tuple[Callable[[Scene, np.random.Generator], list[Question]], ...] = (
    _how_many, _is_there, _colour, _shape, _look, _relation, _digit,
)  # fmt: skip


def _any(things: Sequence[Thing], random: np.random.Generator) -> Thing:
    return things[int(random.integers(len(things)))]


def _another(options: Sequence[str], one: str, random: np.random.Generator) -> str:
    return choose(random, [option for option in options if option != one])


def _yes(true: bool) -> str:
    return "yes" if true else "no"

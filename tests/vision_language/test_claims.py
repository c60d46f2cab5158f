"""What captions claim about scenes: right ones are right, wrong ones wrong, and the words are the generator's."""

from __future__ import annotations

import pytest

from tasks.samples.scene_model import COLOURS, SHAPES, make_scene
from tasks.samples.scene_texts import ABOVE, LEFT, long_caption, short_caption
from tasks.samples.scene_words import NAMES, NUMBERS, PATTERN_WORDS, PLURALS, SIZE_WORDS, plural
from tasks.vision_language import claims as module
from tasks.vision_language.claims import Thing, claims, named, things_of

THINGS = [Thing("star", "red", 0, 0), Thing("star", "red", 1, 0), Thing("cross", "blue", 2, 2)]


def test_the_words_are_those_of_the_generator():
    assert set(module.COLOURS) == set(COLOURS)
    assert {s: NAMES.get(s, (s,)) for s in SHAPES} == module.NAMES
    assert set(module.LOOKS) == {
        w for words in (SIZE_WORDS, PATTERN_WORDS) for several in words.values() for w in several
    }
    assert module.NUMBERS == NUMBERS
    said = {words for sides in (LEFT, ABOVE) for several in sides.values() for words in several}
    assert set(module.SIDES) == said
    assert all(module.plural(name) == plural(name) for names in module.NAMES.values() for name in (*names, *PLURALS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A picture of two red stars and a blue plus sign.", {"count": [1, 1], "colour": [1, 1], "shape": [1, 1]}),
        ("3 large red stars.", {"count": [0], "colour": [1], "shape": [1]}),
        ("a small striped green star", {"count": [0], "colour": [0], "shape": [1]}),
        ("an orange heart", {"count": [0], "colour": [0], "shape": [0]}),
        ("The blue cross is below the star.", {"relation": [1]}),
        ("The cross is to the left of the red star.", {"relation": [0]}),
        ("The heart is above the star.", {"relation": [0]}),
        ("Nothing much.", {}),
    ],
)
def test_claims_are_found_and_judged(text, expected):
    found: dict[str, list[int]] = {}
    for claim in claims(text, THINGS):
        found.setdefault(claim.kind, []).append(int(claim.right))
    assert found == expected


def test_all_that_the_generator_says_is_so_and_most_of_another_scene_is_not():
    right = wrong = groups = there = 0
    for index in range(150):
        scene, other = make_scene(0, index), make_scene(0, index + 1000)
        things, others = things_of(scene.as_json()), things_of(other.as_json())
        for text in (short_caption(scene, 0, index), long_caption(scene, 0, index)):
            made = list(claims(text, things))
            assert made
            assert all(claim.right for claim in made), text
            right += len(made)
            wrong += sum(not claim.right for claim in claims(text, others))
            told, of = named(text, things)
            groups, there = groups + told, there + of
    assert groups == there, "captions count every group"
    assert wrong > 0.7 * right

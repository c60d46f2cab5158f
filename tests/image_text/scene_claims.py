"""An independent reader of captions and questions: what they say, checked against the truth about a scene."""

from __future__ import annotations

import re
from typing import Any

Truth = dict[str, Any]

SHAPES = {
    "circle": "circle", "disc": "circle", "square": "square", "triangle": "triangle", "star": "star", "ring": "ring",
    "heart": "heart", "cross": "cross", "plus sign": "cross", "diamond": "diamond", "rhombus": "diamond",
}  # fmt: skip
NAMES = {**SHAPES, **{f"{name}{'es' if name[-1] == 's' else 's'}": shape for name, shape in SHAPES.items()}}
COLOURS = ["red", "green", "blue", "yellow", "orange", "purple", "pink", "black", "brown", "turquoise"]
SIZES = {"small": "small", "little": "small", "large": "large", "big": "large"}
PATTERNS = {
    "striped": "striped", "dotted": "dotted", "spotted": "dotted", "checkered": "checkered", "chequered": "checkered",
    "with stripes": "striped", "with dots": "dotted", "with a checkered pattern": "checkered",
    "plain": "plain", "has no pattern": "plain",
}  # fmt: skip
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
NUMBERS |= {str(n): n for n in range(8)}
CELLS = {
    "top left": (0, 0), "top centre": (1, 0), "top right": (2, 0),
    "middle left": (0, 1), "centre": (1, 1), "middle right": (2, 1),
    "bottom left": (0, 2), "bottom centre": (1, 2), "bottom right": (2, 2),
}  # fmt: skip
GROUNDS = {
    "softly clouded": "clouded", "pale and cloudy": "clouded", "a pale gradient": "graded",
    "a smooth, light gradient": "graded", "pale and finely speckled": "speckled",
    "light and a little grainy": "speckled",
}  # fmt: skip


def one_of(name: str, words: Any) -> str:
    """Return a group of alternatives, the longest first."""
    return f"(?P<{name}>{'|'.join(sorted(map(re.escape, words), key=len, reverse=True))})"


NOUN = re.compile(
    rf"\b{one_of('count', NUMBERS)} (?:{one_of('size', SIZES)} )?(?:{one_of('pattern', list(PATTERNS)[:5])} )?"
    rf"{one_of('colour', COLOURS)} {one_of('shape', NAMES)}\b(?: {one_of('after', list(PATTERNS)[5:8])})?",
    re.IGNORECASE,
)
DIGIT = re.compile(
    rf"\b(?:the (?:digit|number) (?P<a>\d),?(?: written)? in {one_of('b', COLOURS)}"
    rf"|an? {one_of('c', COLOURS)} (?:digit|number) (?P<d>\d))",
    re.IGNORECASE,
)


def thing(name: str, scene: Truth) -> Truth:
    """Return the only thing that `red star` or `star` can mean."""
    colour, _, shape = name.partition(" ") if name.split(" ")[0] in COLOURS else ("", "", name)
    (found,) = (t for t in scene["things"] if t["shape"] == SHAPES[shape])
    assert colour in ("", found["colour"]), f"there is no {name}"
    return found


def holds_inventory(words: str, scene: Truth) -> bool:
    """Whether a sentence names everything in a scene, once, and says nothing else of it."""
    left = [dict(t) for t in scene["things"]]
    for noun in NOUN.finditer(words):
        said = {key: value.lower() for key, value in noun.groupdict().items() if value}
        alike = [t for t in left if (t["shape"], t["colour"]) == (NAMES[said["shape"]], said["colour"])]
        pattern = said.get("pattern") or said.get("after")
        if len(alike) != NUMBERS[said["count"]] or any(
            ("size" in said and t["size"] != SIZES[said["size"]]) or (pattern and t["pattern"] != PATTERNS[pattern])
            for t in alike
        ):
            return False
        left = [t for t in left if t not in alike]
    digits = [(int(m["a"] or m["d"]), m["b"] or m["c"]) for m in DIGIT.finditer(words)]
    drawn = [(scene["digit"]["value"], scene["digit"]["colour"])] if scene["digit"] else []
    rest = set(re.findall(r"\w+", DIGIT.sub("", NOUN.sub("", words)).lower()))
    silent = rest.isdisjoint({*COLOURS, *NAMES, *SIZES, *list(PATTERNS)[:5], *"0123456789", "top", "left", "row"})
    return not left and digits == drawn and silent


def rows_and_columns(name: str, scene: Truth) -> tuple[set[int], set[int]]:
    """Return where all `red stars` are."""
    colour, _, shape = name.partition(" ")
    found = [t for t in scene["things"] if (t["colour"], t["shape"]) == (colour, NAMES[shape])]
    assert len(found) > 1
    return {t["row"] for t in found}, {t["column"] for t in found}


def holds(sentence: str, scene: Truth) -> bool:
    """Whether one sentence of a caption is true; one that says nothing known is a `LookupError`."""
    noun = rf"(?:{'|'.join(COLOURS)})? ?(?:{'|'.join(SHAPES)})"
    for pattern, check in [
        (rf"(?:The|You will find the) ({noun}) .*\bin the ([a-z ]+?)(?: of the picture)?\.",
         lambda a, where: (thing(a, scene)["column"], thing(a, scene)["row"]) == CELLS[where]),
        (rf"The ({noun}) is (?:to the |further )?left (?:of|than) the ({noun})\.",
         lambda a, b: thing(a, scene)["column"] < thing(b, scene)["column"]),
        (rf"The ({noun}) is (?:to the |further )?right (?:of|than) the ({noun})\.",
         lambda a, b: thing(a, scene)["column"] > thing(b, scene)["column"]),
        (rf"The ({noun}) is (?:above|higher up than) the ({noun})\.",
         lambda a, b: thing(a, scene)["row"] < thing(b, scene)["row"]),
        (rf"The ({noun}) is (?:below|lower down than) the ({noun})\.",
         lambda a, b: thing(a, scene)["row"] > thing(b, scene)["row"]),
        (rf"The ({noun}) is between the ({noun}) and the ({noun})\.",
         lambda m, a, b: all(2 * thing(m, scene)[k] == thing(a, scene)[k] + thing(b, scene)[k]
                             for k in ("column", "row"))),
        (rf"The ({noun}) is (\w+)(?: and |, )([a-z ]+)\.",
         lambda a, size, look: (thing(a, scene)["size"], thing(a, scene)["pattern"]) == (SIZES[size], PATTERNS[look])),
        (r"All of the ([a-z ]+) look alike\.", lambda a: bool(rows_and_columns(a, scene))),
        (r"The ([a-z ]+) stand side by side in the (\w+) row\.",
         lambda a, row: rows_and_columns(a, scene)[0] == {CELLS[f"{row} left"][1]}),
        (r"The ([a-z ]+) are in the (\w+) column, one above the other\.",
         lambda a, column: rows_and_columns(a, scene)[1] == {CELLS[f"top {column}"][0]}),
        (r"The digit is in the ([a-z ]+)\.",
         lambda where: (scene["digit"]["column"], scene["digit"]["row"]) == CELLS[where]),
        (r"(?:The number (\d) is written in the ([a-z ]+))\.", lambda n, where: written(scene) == (int(n), where)),
        (r"In the ([a-z ]+) it says (\d)\.", lambda where, n: written(scene) == (int(n), where)),
        (r"The background is ([a-z, ]+)\.", lambda ground: scene["ground"] == GROUNDS[ground]),
        (r"The (\w+) row of the picture is empty\.",
         lambda row: all(p["row"] != CELLS[f"{row} left"][1] for p in [*scene["things"], scene["digit"]] if p)),
        (r"No ([a-z ]+) appear in it\.", lambda a: all(t["shape"] != NAMES[a] for t in scene["things"])),
        (r"There is not an? ([a-z ]+) anywhere\.", lambda a: all(t["shape"] != SHAPES[a] for t in scene["things"])),
        (r"Nothing is written on it\.", lambda: scene["digit"] is None),
        (r"[A-Z][a-z ]+ (\w+) shapes?(?: on .+)?\.",
         lambda n: len(scene["things"]) == NUMBERS.get(n, 1 if n == "single" else -1)),
    ]:  # fmt: skip
        if match := re.fullmatch(pattern, sentence):
            return bool(check(*match.groups()))
    if NOUN.search(sentence):
        return holds_inventory(sentence, scene)
    raise LookupError(sentence)


def written(scene: Truth) -> tuple[int, str]:
    """Return the digit, and where it is in words."""
    digit = scene["digit"]
    return digit["value"], next(words for words, cell in CELLS.items() if cell == (digit["column"], digit["row"]))


def answer(question: str, scene: Truth) -> str:
    """Return the right answer to a question; one that is not understood is a `LookupError`."""
    colour, things = rf"(?:({'|'.join(COLOURS)}) )", scene["things"]

    def count(colour: str | None, shape: str) -> int:
        wanted = NAMES.get(shape)
        return sum((not colour or t["colour"] == colour) and (not wanted or t["shape"] == wanted) for t in things)

    def only(**wanted: Any) -> Truth:
        (found,) = (t for t in things if all(t[key] == value for key, value in wanted.items()))
        return found

    def yes(true: bool) -> str:
        return "yes" if true else "no"

    def cell(where: str) -> Truth:
        return only(column=CELLS[where][0], row=CELLS[where][1])

    for pattern, find in [
        (rf"(?:How many|What is the number of) {colour}?(\w+)(?: are there| can you see)?\?",
         lambda c, s: str(count(c, s))),
        (rf"(?:Is there|Can you see|Does the image show) an? {colour}(\w+)\?", lambda c, s: yes(count(c, s) > 0)),
        (r"What colour are the (\w+)\?", lambda s: {t["colour"] for t in things if t["shape"] == NAMES[s]}.pop()),
        (r"What colour is the digit\?", lambda: scene["digit"]["colour"]),
        (r"(?:What|Which) colour (?:is|does) the (\w+)(?: have)?\?", lambda s: only(shape=s)["colour"]),
        (r"Which shape is in the ([a-z ]+)\?", lambda where: cell(where)["shape"]),
        (r"Which shape is (\w+)\?", lambda c: only(colour=c)["shape"]),
        (r"Where in the image is the (\w+)\?",
         lambda s: next(w for w, at in CELLS.items() if at == (only(shape=s)["column"], only(shape=s)["row"]))),
        (r"Is the (\w+) plain, striped, dotted or checkered\?", lambda s: only(shape=s)["pattern"]),
        (r"Is the (\w+) small or large\?", lambda s: only(shape=s)["size"]),
        (r"Is the (\w+) to the left of the (\w+)\?",
         lambda a, b: yes(only(shape=a)["column"] < only(shape=b)["column"])),
        (r"Is the (\w+) above the (\w+)\?", lambda a, b: yes(only(shape=a)["row"] < only(shape=b)["row"])),
        (r"Which is further to the left, the (\w+) or the (\w+)\?",
         lambda a, b: min([a, b], key=lambda s: only(shape=s)["column"])),
        (r"Which is higher up, the (\w+) or the (\w+)\?", lambda a, b: min([a, b], key=lambda s: only(shape=s)["row"])),
        (r"(?:Which digit is written in the image|What number can be read)\?", lambda: str(scene["digit"]["value"])),
        (r"Is the number (\d) written in the image\?", lambda n: yes(scene["digit"]["value"] == int(n))),
    ]:  # fmt: skip
        if match := re.fullmatch(pattern, question):
            return find(*match.groups())
    raise LookupError(question)

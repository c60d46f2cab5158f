"""English prose that was written by people and is there without a download: what installed packages ship.

Paragraphs come from docstrings of Python packages, and from the language reference in the standard library's
`pydoc_data.topics`. Headings, tables, signatures and code fall out by simple rules, and no paragraph counts twice.
Training and held-out text differ by source: the reference is held out as a whole. A pretrained model may have met all
of it, so perplexities compare forms of one model, not models.
"""

from __future__ import annotations

import ast
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from inspect import cleandoc
from pathlib import Path
from typing import Any

REFERENCE = "Python language reference"
PACKAGES = ("numpy", "scipy", "matplotlib", "pandas", "networkx", "nltk", "xarray")
"""Packages whose docstrings are training text; those that are not installed are passed over."""
FEWEST_WORDS = 20
LEAST_PROSE = 0.93
"""Share of a paragraph's characters that are letters, spaces or commas and full stops."""
CODE = re.compile(r">>>|::|\.\. |[{}=|\\<>]|__|\w\(|https?:")
SENTENCE = re.compile(r"^[A-Z\"'].*[.!?:]$", re.DOTALL)


@dataclass(frozen=True)
class Text:
    """Paragraphs of one source."""

    source: str
    """Package and version."""
    licence: str
    """As its metadata tell."""
    paragraphs: tuple[str, ...]

    @property
    def characters(self) -> int:
        """Length of all paragraphs."""
        return sum(map(len, self.paragraphs))

    def provenance(self) -> dict[str, str | int]:
        """Return where the text is from and how much of it there is, for a figure's details."""
        counts = {"paragraphs": len(self.paragraphs), "characters": self.characters}
        return {"source": self.source, "licence": self.licence, **counts}


def held_out_text() -> Text:
    """Return the prose of the Python language reference."""
    from pydoc_data.topics import topics

    pages = (topics[name] for name in sorted(topics))
    return Text(f"{REFERENCE} {platform.python_version()}", "PSF-2.0", tuple(_distinct(pages, set())))


def training_texts() -> list[Text]:
    """Return the prose of docstrings, package by package; nothing of it is in `held_out_text`."""
    seen = set(held_out_text().paragraphs)
    texts = []
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        paragraphs = tuple(_distinct(_docstrings(Path(next(iter(spec.submodule_search_locations)))), seen))
        texts.append(Text(f"{package} {metadata.version(package)}", _licence(package), paragraphs))
    return texts


def _licence(package: str) -> str:
    told: Any = metadata.metadata(package)
    classifiers = [c.rpartition(" :: ")[2] for c in told.get_all("Classifier") or () if c.startswith("License")]
    words = told.get("License-Expression") or ", ".join(classifiers) or told.get("License") or "not told"
    return words.splitlines()[0]


def _docstrings(folder: Path) -> Iterator[str]:
    """Yield the docstrings below a package's folder, without importing anything; its tests are left out."""
    for path in sorted(folder.rglob("*.py")):
        if {"tests", "test"} & set(path.relative_to(folder).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError:  # for a newer Python
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""


def _distinct(pages: Iterable[str], seen: set[str]) -> Iterator[str]:
    """Yield paragraphs of prose that were not seen before, and note them."""
    for page in pages:
        for block in re.split(r"\n\s*\n", page):
            paragraph = " ".join(cleandoc(block).split())
            if paragraph not in seen and is_prose(paragraph):
                seen.add(paragraph)
                yield paragraph


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is sentences rather than code, a table or a list of parameters."""
    if CODE.search(paragraph) or not SENTENCE.match(paragraph) or len(paragraph.split()) < FEWEST_WORDS:
        return False
    plain = sum(character.isalpha() or character in " ,.'" for character in paragraph)
    return plain >= LEAST_PROSE * len(paragraph)

"""Sudokus of 6 x 6 cells, boxes of 2 x 3, with exactly one solution each.

Clues are taken away in random order, each unless a second solution would arise, down to a number of clues.

A solution is for training, validation or testing by a digest of its canonical form, in which the digits are renamed so
that the first row is 1 ... 6. So no puzzle, however its digits are renamed, has a solution that is of another part.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from storage.files import write_atomic

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
SIDE = 6
CELLS = SIDE**2
HELD_OUT: tuple[Part, ...] = ("validation", "test")
SHARE = 8
"""One of so many canonical solutions is for each part that is held out."""
ALL = 2**SIDE - 1
"""Bits of all digits."""

Grid = NDArray[np.int64]
"""(36,) digits; 0 where unknown."""


def _units() -> list[list[int]]:
    """Return the cells of each row, column and box."""
    cells = np.arange(CELLS).reshape(SIDE, SIDE)
    boxes = cells.reshape(3, 2, 2, 3).swapaxes(1, 2).reshape(SIDE, SIDE)
    return [*cells.tolist(), *cells.T.tolist(), *boxes.tolist()]


UNITS = _units()
PEERS = [sorted({c for unit in UNITS if cell in unit for c in unit} - {cell}) for cell in range(CELLS)]
"""Cells that may not hold the same digit as a cell."""


@dataclass(frozen=True)
class Sudokus:
    """Puzzles of one part."""

    clues: Grid
    """(N, 36)"""
    solutions: Grid
    """(N, 36)"""

    @classmethod
    def draw(cls, part: Part, count: int, clues: int, seed: int) -> Self:
        """Draw puzzles; equal arguments give equal ones."""
        random = np.random.default_rng([seed, PARTS.index(part)])
        solutions = [_solution_of(part, random) for _ in range(count)]
        return cls(np.array([take_away(solution, clues, random) for solution in solutions]), np.array(solutions))

    def save(self, path: Path) -> None:
        """Write them to a file that appears whole."""
        write_atomic(path, np.stack([self.clues, self.solutions]).astype(np.uint8).tobytes())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return cls(*np.frombuffer(path.read_bytes(), np.uint8).reshape(2, -1, CELLS).astype(np.int64))


def canonical(solution: Grid) -> bytes:
    """Return a solution with its digits renamed: 1 ... 6 in the first row."""
    names = np.zeros(SIDE + 1, np.uint8)
    names[solution[:SIDE]] = np.arange(1, SIDE + 1)
    return names[solution].tobytes()


def part_of(solution: Grid) -> Part:
    """Return which part a solution is for, the same however its digits are named."""
    place = zlib.crc32(canonical(solution)) % SHARE
    return HELD_OUT[place] if place < len(HELD_OUT) else "train"


def take_away(solution: Grid, clues: int, random: np.random.Generator) -> Grid:
    """Return a puzzle that has this solution alone, with so many clues or, where that cannot be, a few more."""
    puzzle, left = solution.copy(), CELLS
    for cell in random.permutation(CELLS):
        if left == clues:
            break
        candidates = _candidates(puzzle, without=int(cell))
        others = candidates[cell] & ~(1 << int(solution[cell] - 1))
        if not any(_solved_with(candidates, int(cell), 1 << digit) for digit in range(SIDE) if others >> digit & 1):
            puzzle[cell] = 0
            left -= 1
    return puzzle


def _solution_of(part: Part, random: np.random.Generator) -> Grid:
    while True:
        candidates = [ALL] * CELLS
        row = random.permutation(SIDE).tolist()
        for cell, digit in enumerate(row[:-1]):
            assert _place(candidates, cell, 1 << digit)
        solved = _solved_with(candidates, SIDE - 1, 1 << row[-1], random)
        solution = np.array([bits.bit_length() for bits in solved])
        if part_of(solution) == part:
            return solution


def _candidates(puzzle: Grid, without: int) -> list[int]:
    """Return the bits of the digits that each cell may hold by all clues but one."""
    candidates = [ALL] * CELLS
    for cell in np.flatnonzero(puzzle):
        if cell != without:
            placed = _place(candidates, int(cell), 1 << int(puzzle[cell] - 1))
            assert placed, "the clues of a puzzle with a solution do not contradict each other"
    return candidates


def _place(candidates: list[int], cell: int, bit: int) -> bool:
    """Put a digit into a cell and whatever follows from single candidates; False at a contradiction."""
    if not candidates[cell] & bit:
        return False
    candidates[cell] = bit
    for peer in PEERS[cell]:
        had = candidates[peer]
        if had & bit:
            candidates[peer] = had ^ bit
            if had == bit:
                return False
            if (had ^ bit).bit_count() == 1 and not _place(candidates, peer, had ^ bit):
                return False
    return True


def _solved_with(candidates: list[int], cell: int, bit: int, random: np.random.Generator | None = None) -> list[int]:
    """Return a solution with this digit in this cell, one bit for each cell; nothing where there is none."""
    tried = candidates.copy()
    if not _place(tried, cell, bit):
        return []
    open_cells = [other for other in range(CELLS) if tried[other].bit_count() > 1]
    if not open_cells:
        return tried
    fewest = min(open_cells, key=lambda other: tried[other].bit_count())
    digits = range(SIDE) if random is None else random.permutation(SIDE).tolist()
    for digit in digits:
        if tried[fewest] >> digit & 1 and (found := _solved_with(tried, fewest, 1 << digit, random)):
            return found
    return []

"""Which files of a checkpoint are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from configs.pretrained import COMPANIONS, DESCRIPTION, GGUF, TORCH_WEIGHTS, WEIGHTS

REWRITTEN = "weights"
"""The unit of files that are rewritten; no file is called so."""


@dataclass(frozen=True)
class Choice:
    """The files of a checkpoint that are needed, by name."""

    kept: tuple[str, ...]
    """They become the asset's as they are."""
    rewritten: tuple[str, ...] = ()
    """Weights, and what describes them, in another format than safetensors; empty where the weights are kept."""

    def units(self) -> dict[str, tuple[str, ...]]:
        """Return the files of every unit of work: each one that is kept, and those that are rewritten together."""
        units = {name: (name,) for name in self.kept}
        return units | ({REWRITTEN: self.rewritten} if self.rewritten else {})


def choose(names: Iterable[str], place: str) -> Choice:
    """Choose from the files in the top folder of a checkpoint; safetensors if there are any.

    Raises:
        ValueError: `place` holds no checkpoint, or several.
    """
    names = sorted(name for name in names if "/" not in name and not name.startswith("."))
    companions, description = _matching(names, COMPANIONS), _matching(names, DESCRIPTION)
    if weights := _matching(names, WEIGHTS):
        chosen = Choice((*companions, *description, *weights))
    elif weights := _matching(names, TORCH_WEIGHTS):
        chosen = Choice(companions, (*description, *weights))
    elif weights := _matching(names, (GGUF,)):
        if len(weights) > 1:
            raise ValueError(f"{place} holds several GGUF files ({', '.join(weights)}); name a folder with one")
        return Choice((), weights)
    else:
        raise ValueError(f"{place} holds no checkpoint: no {WEIGHTS[0]}, {TORCH_WEIGHTS[0]} or {GGUF}; name another")
    if "config.json" not in description:
        raise ValueError(f"{place} has weights, but no config.json that says of what model; name another")
    return chosen


def _matching(names: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))

"""The logits of a GGUF file for given inputs, for whoever compares them with those of torch.

python -m tasks.edge.probe MODEL.gguf INPUTS.npz OUTPUTS.npz

INPUTS holds `vectors` (N, K, C), `ids` (N, L) or both, vectors first; OUTPUTS gets `logits` (N, K + L, vocabulary).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tasks.edge.language import Language


def main() -> int:
    """Read every sequence position by position; return 2 for a file that cannot be read."""
    model, inputs, outputs = map(Path, sys.argv[1:])
    given = np.load(inputs)
    parts = [given[name] for name in ("vectors", "ids") if name in given]
    length = sum(part.shape[1] for part in parts)
    try:
        language = Language(model, context=length)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logits = np.empty((len(parts[0]), length, language.vocabulary), np.float32)
    for row, sequences in enumerate(zip(*parts, strict=True)):
        language.clear()
        for sequence in sequences:
            for one in sequence:
                if one.ndim:
                    language.read_vectors(one[None])
                else:
                    language.read_tokens([int(one)])
                logits[row, language.position - 1] = language.logits()
    np.savez(outputs, logits=logits)
    return 0


if __name__ == "__main__":
    sys.exit(main())

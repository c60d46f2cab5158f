"""The logits of a GGUF file for given inputs, for whoever compares them with those of torch.

python -m tasks.edge.probe MODEL.gguf INPUTS.npz OUTPUTS.npz

INPUTS holds `ids` (N, L) or `vectors` (N, L, C); OUTPUTS gets `logits` (N, L, vocabulary).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tasks.edge.language import Language


def main() -> int:
    """Read every sequence position by position; return 2 for a file that cannot be read."""
    model, inputs, outputs = map(Path, sys.argv[1:])
    ((kind, sequences),) = np.load(inputs).items()
    try:
        language = Language(model, context=sequences.shape[1])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logits = np.empty((*sequences.shape[:2], language.vocabulary), np.float32)
    for row, sequence in enumerate(sequences):
        language.clear()
        for place in range(len(sequence)):
            if kind == "ids":
                language.read_tokens(sequence[place : place + 1].tolist())
            else:
                language.read_vectors(sequence[place : place + 1])
            logits[row, place] = language.logits()
    np.savez(outputs, logits=logits)
    return 0


if __name__ == "__main__":
    sys.exit(main())

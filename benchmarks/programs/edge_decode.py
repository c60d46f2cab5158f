"""Reads a prompt and decodes tokens with a GGUF file, one after another.

Arguments: path, repack, prompt, tokens. Answers with tokens per second of both, and the peak of its resident memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.programs.edge_caption import status
from tasks.edge.language import Language


def main(task: dict[str, Any]) -> None:
    """Read, decode, and answer."""
    language = Language(Path(task["path"]), repack=task["repack"])
    language.read_tokens([1])  # opens the file's pages
    language.clear()
    began = time.perf_counter()
    language.read_tokens([(7 * index) % 256 for index in range(task["prompt"])])
    language.logits()
    read = time.perf_counter()
    for _ in range(task["tokens"]):
        language.read_tokens([int(language.logits().argmax())])
    ended = time.perf_counter()
    answer = {
        "read_per_second": task["prompt"] / (read - began),
        "tokens_per_second": task["tokens"] / (ended - read),
        "peak_bytes": 1024 * int(status("VmHWM")),
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

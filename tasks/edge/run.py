"""Describe images, or talk about them, with the model in this folder.

python run.py picture.jpg                       a caption
python run.py picture.jpg --ask "How many?"     an answer
python run.py picture.jpg --chat                questions from the keyboard; `image PATH` shows another image, an empty
                                                line ends it
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tasks.edge.engine import EdgeEngine

FOLDER = Path(__file__).parent


def main() -> int:
    """Do what the command line says; return 2 for bad input."""
    options = _options()
    try:
        engine = EdgeEngine(options.model)
        if options.memory and options.memory.exists():
            engine.load_memory(options.memory)
        _talk(engine, options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (EOFError, KeyboardInterrupt):
        print()
    return 0


def _talk(engine: EdgeEngine, options: argparse.Namespace) -> None:
    choices = {"longest": options.longest, "temperature": options.temperature, "seed": options.seed}
    for image in options.images:
        if not (options.chat or options.ask):
            name = f"{image}: " if len(options.images) > 1 else ""
            print(f"{name}{engine.caption(image, options.prompt, **choices)}", flush=True)
        else:
            _show(engine, image, options.memory)
    if options.ask:
        _say(engine.stream(options.ask, **choices))
    while options.chat and (line := input("> ").strip()):
        if line.startswith("image "):
            _show(engine, Path(line.removeprefix("image ")), options.memory)
        else:
            _say(engine.stream(line, **choices))


def _show(engine: EdgeEngine, image: Path, memory: Path | None) -> None:
    engine.show(image)
    if engine.memory and (number := engine.memory.number) < engine.memory.seen:
        print(f"image {number} is forgotten: {image} takes its place", flush=True)
    if memory:
        engine.save_memory(memory)


def _say(pieces: Iterator[str]) -> None:
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="JPEG or PNG files")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what stands before a caption (the model's own)")
    parser.add_argument("--ask", metavar="QUESTION", help="answer this instead of describing the image")
    parser.add_argument("--chat", action="store_true", help="go on with questions from the keyboard")
    parser.add_argument("--memory", type=Path, metavar="FILE", help="remember in this file what was seen")
    parser.add_argument("--longest", type=int, metavar="TOKENS", help="the longest answer")
    parser.add_argument("--temperature", type=float, default=0.0, help="above 0, answers are drawn (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--model", type=Path, default=FOLDER, help="the exported model (default: this folder)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

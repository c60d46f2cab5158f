"""Verbs that show images to vision-language models: `caption` and `chat`; and `export`, for engines without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.commands.options import Root, console, store_of

if TYPE_CHECKING:
    from tasks.vision_language.describe import Writing

Model = Annotated[
    str | None,
    typer.Option(help="Asset or folder; the best that was trained when absent.", show_default=False),
]
Longest = Annotated[int, typer.Option(help="Most tokens of a text.", min=1)]
Temperature = Annotated[
    float,
    typer.Option(
        help="0 takes the likeliest token each time; above, one is drawn from the likeliest, which together have a "
        "probability of 0.9.",
        min=0,
    ),
]
Engine = Annotated[
    Literal["torch", "edge"],
    typer.Option(
        help="torch, or edge: llama.cpp and ONNX Runtime in the environment of `make edge`. There a model is an asset, "
        "which is exported first, or a folder that `millrace export` wrote."
    ),
]
Seed = Annotated[int, typer.Option(help="Of tokens that are drawn, where the temperature is above 0.")]


def caption(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    model: Model = None,
    prompt: Annotated[str, typer.Option(help="What stands before the text; the model's own when empty.")] = "",
    max_new_tokens: Longest = 64,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    engine: Engine = "torch",
    root: Root = None,
) -> None:
    """Say what is in images.

    For example: millrace caption photo.jpg --model microvlm_packed
    """
    if engine == "edge":
        from flows.commands.on_edge import run_on_edge

        chosen = _choices(max_new_tokens, temperature, seed)
        if prompt:
            chosen += ["--prompt", prompt]
        run_on_edge(console, store_of(root), model, [*map(str, images), *chosen])
        return
    from flows.commands.see import caption_images

    writing = _writing(max_new_tokens, temperature, seed)
    caption_images(console, store_of(root), model=model, images=images, prompt=prompt, writing=writing)


def chat(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Images that are shown first.", show_default=False)
    ] = None,
    model: Model = None,
    memory: Annotated[
        Path | None, typer.Option(help="File that keeps what was seen, for the next time.", show_default=False)
    ] = None,
    max_new_tokens: Longest = 64,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    engine: Engine = "torch",
    root: Root = None,
) -> None:
    """Talk about images; earlier ones are remembered: "What did the previous image show?"

    For example: millrace chat one.jpg two.jpg --memory talk.safetensors
    """
    if engine == "edge":
        from flows.commands.on_edge import run_on_edge

        chosen = ["--chat", *_choices(max_new_tokens, temperature, seed)]
        if memory:
            chosen += ["--memory", str(memory)]
        run_on_edge(console, store_of(root), model, [*map(str, images or []), *chosen])
        return
    from flows.commands.see import chat as talk

    talk(
        console,
        store_of(root),
        model=model,
        images=images or [],
        memory=memory,
        lines=iter(sys.stdin),
        writing=_writing(max_new_tokens, temperature, seed),
    )


def export(
    to: Annotated[Path, typer.Option(help="New folder, to be copied to the board.", show_default=False)],
    model: Model = None,
    check: Annotated[
        bool,
        typer.Option(
            help="Compare the folder with the model in torch, on images of the validation split; the decoder is "
            "compared where there is llama.cpp (make edge). check.json keeps what was found."
        ),
    ] = True,
    root: Root = None,
) -> None:
    """Write a model as a folder that runs without torch: llama.cpp, ONNX Runtime, and a program of its own.

    For example: millrace export --model microvlm_packed --to board, then in that folder: python run.py photo.jpg
    """
    from flows.commands.export import export_model

    export_model(console, store_of(root), model=model, to=to, check=check)


def _choices(max_new_tokens: int, temperature: float, seed: int) -> list[str]:
    """Return how texts are written, as the edge engine's program takes it."""
    return ["--longest", str(max_new_tokens), "--temperature", str(temperature), "--seed", str(seed)]


def _writing(max_new_tokens: int, temperature: float, seed: int) -> Writing:
    import torch

    from tasks.edge.drawing import DRAWN_FROM
    from tasks.vision_language.describe import Writing

    generator = torch.Generator().manual_seed(seed) if temperature else None
    return Writing(max_new_tokens, temperature, DRAWN_FROM if temperature else 1.0, generator)

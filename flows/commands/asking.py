"""The verbs that ask a trained model, or how good it is: `predict-fire`, `narrate`, `ask`, `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import Root, console, store_of


def predict_fire(
    sequence: Annotated[
        str, typer.Argument(help="Name or number of the fire: sequence_012 or 12.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A trained model: asset, key or folder; the newest data's best on validation when absent."),
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(help="Archive with the fire; the one that the model was trained on when absent."),
    ] = None,
    start: Annotated[
        int | None,
        typer.Option("--from", min=0, help="Last frame that is known; the record's last frame when absent."),
    ] = None,
    ahead: Annotated[int, typer.Option(min=1, max=48, help="Frames to predict, each from the one before.")] = 1,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("predictions"),
    root: Root = None,
) -> None:
    """Predict how a fire goes on: a georeferenced GeoTIFF and a picture per frame, and scores where the truth is known.

    For example: millrace predict-fire 12 --from 3 --ahead 3. An archive given by --archive is decoded and cached first.
    """
    from flows.commands.predict_fire import predict_sequence

    predict_sequence(
        console,
        store_of(root),
        model=model,
        archive=archive,
        sequence=sequence,
        start=start,
        ahead=ahead,
        output=output,
    )


def narrate(
    day: Annotated[str, typer.Option("--date", help="UTC date, e.g. 2024-03-15.", show_default=False)],
    region: Annotated[
        str | None, typer.Option(help="Tell about this region only; about every known one in sight when absent.")
    ] = None,
    anchor: Annotated[
        str | None,
        typer.Option(help="Which step's date names a window: first, middle or last; as in training when absent."),
    ] = None,
    max_samples: Annotated[int, typer.Option(min=1, max=512, help="Most texts.")] = 6,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Mass of the tokens that are drawn from.")] = 0.9,
    max_new_tokens: Annotated[int, typer.Option(min=4, max=4096, help="Longest text.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same texts.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="A trained narrator: asset, key or folder; the newest data's likeliest when absent."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("narratives"),
    root: Root = None,
) -> None:
    """Tell the weather of a date in words: a text per region with its map, checked against the fields.

    For example: millrace narrate --date 2024-03-15 --region "North Sea".
    """
    from configs.weather_lm import NarrationEvaluation
    from flows.commands.narrate import narrate_date, parse_date
    from tasks.narration.narrate import Request

    if anchor not in (None, "first", "middle", "last"):
        raise ValueError(f"--anchor {anchor!r} must be first, middle or last")
    narrate_date(
        console,
        store_of(root),
        model=model,
        request=Request(parse_date(day), region, anchor, max_samples),  # type: ignore[arg-type]
        writing=NarrationEvaluation(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed),
        output=output,
    )


def ask(
    image: Annotated[Path, typer.Argument(help="Image file.", show_default=False)],
    questions: Annotated[
        list[str], typer.Argument(help="One question or several, each in quotes.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A trained answerer: asset, key or folder; the newest questions' best when absent."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Steps of a recursive decoder, more than in training if you like."),
    ] = None,
    show_steps: Annotated[bool, typer.Option("--show-steps", help="Print the answer after each of them.")] = False,
    beams: Annotated[int, typer.Option(min=1, max=64, help="Answers that are followed at once.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Mass of the tokens that are drawn from.")] = 0.9,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Longest answer.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same answers.")] = 0,
    root: Root = None,
) -> None:
    """Answer questions about an image.

    For example: millrace ask photo.jpg "How many stars are there?" "What colour is the circle?" --show-steps
    """
    import torch

    from flows.commands.ask import ask_about
    from tasks.answering.writing import Writing

    if beams > 1 and temperature:
        raise ValueError(
            "beams are followed by likelihood, and a temperature draws; give one of --beams and --temperature"
        )
    generator = torch.Generator().manual_seed(seed) if temperature else None
    writing = Writing(max_new_tokens, temperature, top_p if temperature else 1.0, beams, generator)
    ask_about(
        console,
        store_of(root),
        model=model,
        image=image,
        questions=questions,
        writing=writing,
        steps=steps,
        show_steps=show_steps,
    )


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A trained model: asset, the start of its key, or a folder.", show_default=False)
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="What it is judged on: an asset of the kind that it was made from, or a folder of raw files. May be "
            "repeated. What is not named is what the model was made from.",
            show_default=False,
        ),
    ] = None,
    root: Root = None,
) -> None:
    """Judge a trained model again, on other data, with the report of its pipeline. Nothing is trained.

    Fires, weather and images that the model was trained or chosen on are refused, by what they are, not by name.

    For example: millrace evaluate fire_model --on /data/fires, or millrace evaluate weather_narrator --on
    era5_training_set/4f1c --on weather_captions/90ab.
    """
    from flows.commands.evaluate import evaluate_model

    evaluate_model(console, store_of(root), model=model, on=on or [])

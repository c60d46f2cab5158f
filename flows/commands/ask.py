"""`millrace ask`: questions about images, answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from flows.commands.see import read_image, trained_square
from flows.runs import RunRecord, recorded
from storage.assets import Asset, AssetStore
from storage.lineage import best, made_from, short_name
from tasks.progress import Terminal
from tasks.session import Session

if TYPE_CHECKING:
    from tasks.answering.writing import Writing

KINDS = ("answerer", "answerer_packed")
ENCODER = "image_encoder"
WEATHER_ENCODER = "weather_mae"


def ask_about(
    console: Console,
    store: AssetStore,
    *,
    model: str | None,
    image: Path,
    questions: list[str],
    writing: Writing,
    steps: int | None,
    show_steps: bool,
) -> None:
    """Answer questions about an image; after every step of a recursive decoder, where so wanted."""
    from models.language.trm_lm import TrmLM
    from tasks.alignment.released import AlignedRelease, latents_of
    from tasks.answering.released import AnswererRelease
    from tasks.answering.writing import answers, answers_by_depth

    session = Session(store, Terminal(console))
    asset = answerer_asset(store, model, recursive=bool(steps or show_steps))
    with recorded(
        session, RunRecord.begin("ask", "", {"model": asset.name, "questions": len(questions)}, session.engine)
    ):
        encoder = made_from(store, asset, ENCODER)
        if encoder is None:
            raise ValueError(_not_for_images(store, asset))
        for part in (asset, encoder):
            session.hold(part)
            part.fetch()
        release, eyes = AnswererRelease.from_release(asset.folder), AlignedRelease.from_release(encoder.folder)
    console.print(f"model {short_name(asset)}", highlight=False)
    for question in questions:
        if lost := release.asking.lost(question):
            raise ValueError(
                f"{question!r} is too long: of a question, {short_name(asset)} reads the last "
                f"{release.asking.longest_question} tokens, so it would not see {lost!r}; ask in fewer words"
            )
    square = trained_square(store, encoder, eyes.network.encoder.square)
    pixels = read_image(image, square)
    features = latents_of(eyes.network, pixels[None]).expand(len(questions), -1, -1)
    network, language = release.network, release.network.language
    depth = steps or (language.depth if isinstance(language, TrmLM) else 1)
    if isinstance(language, TrmLM):
        language.depth = depth
    elif steps or show_steps:
        raise ValueError(f"{short_name(asset)} does not recurse, so leave --steps and --show-steps out")
    if show_steps:
        for number, told in enumerate(
            answers_by_depth(network, release.asking, features, questions, depth, writing), start=1
        ):
            _print(console, questions, told, f"after step {number}: ")
        return
    _print(console, questions, answers(network, release.asking, features, questions, writing))


def _print(console: Console, questions: list[str], told: list[str], before: str = "") -> None:
    for question, answer in zip(questions, told, strict=True):
        console.print(f"[dim]{before}[/][bold]{escape(question)}[/] {escape(answer)}", highlight=False, soft_wrap=True)


def _not_for_images(store: AssetStore, asset: Asset) -> str:
    if made_from(store, asset, WEATHER_ENCODER) is not None:
        return (
            f"{short_name(asset)} answers questions about weather windows, and millrace ask shows it an image; name a "
            "model that answers about images with --model, or see its answers in millrace report weather"
        )
    return f"{short_name(asset)} was not made for images: no {ENCODER} is known that it sees by; name another"


def answerer_asset(store: AssetStore, model: str | None, *, recursive: bool = False) -> Asset:
    """Return a model, by default the one that answers most validation questions of the newest ones rightly; one that
    looks at images, and recurses if asked to, where there are any.
    """

    def fits(asset: Asset) -> bool:
        design = asset.manifest.config["design"]
        of_images = any(record.kind == ENCODER for record in asset.manifest.inputs)
        return of_images and design["vision"] and (design["decoder"]["kind"] == "trm" or not recursive)

    asset = store.find(model) if model else best(store, KINDS[0], "exact", alike=("question_set",), preferred=fits)
    if asset.manifest.kind not in KINDS:
        raise ValueError(f"{short_name(asset)} does not answer questions; name one of kind {' or '.join(KINDS)}")
    return asset

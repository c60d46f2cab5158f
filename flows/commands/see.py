"""`millrace caption` and `millrace chat`: what a vision-language model says of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from configs.image_text import ImageFormat
from flows.runs import RunRecord, recorded
from storage.assets import Asset, AssetStore
from storage.lineage import best, made_from, short_name
from tasks.progress import Terminal
from tasks.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from configs.vision_language import Square
    from tasks.vision_language.describe import Writing
    from tasks.vision_language.released import VlmRelease

KINDS = ("microvlm_model", "microvlm_packed")
ALIKE = ("image_text_index", "microvlm_language", "microvlm_language_pruned")
AT_ONCE = 16
HELP = "A line is a question. /show FILE shows an image, /forget begins anew, /quit or Ctrl-D ends."


def caption_images(
    console: Console, store: AssetStore, *, model: str | None, images: list[Path], prompt: str, writing: Writing
) -> None:
    """Say what is in each image."""
    import torch

    from tasks.vision_language.describe import describe

    session = Session(store, Terminal(console))
    asset = vlm_asset(store, model)
    asked = {"model": asset.name, "images": len(images)}
    with recorded(session, RunRecord.begin("caption", "", asked, session.engine)):
        release = opened(console, session, asset)
        prompt = prompt or release.design.phrases.describe
        for first in range(0, len(images), AT_ONCE):
            part = images[first : first + AT_ONCE]
            pixels = torch.stack([read_image(path, release.network.vision.square) for path in part])
            texts = describe(release.network, pixels, release.tokens, prompt, writing)
            for path, text in zip(part, texts, strict=True):
                console.print(f"[bold]{escape(str(path))}[/]: {escape(text)}", highlight=False, soft_wrap=True)


def chat(
    console: Console,
    store: AssetStore,
    *,
    model: str | None,
    images: Iterable[Path],
    memory: Path | None,
    lines: Iterator[str],
    writing: Writing,
) -> None:
    """Talk about images, one after another; what was seen stays in the memory file."""
    from tasks.vision_language.conversation import Conversation

    session = Session(store, Terminal(console))
    asset = vlm_asset(store, model)
    with recorded(session, RunRecord.begin("chat", "", {"model": asset.name}, session.engine)):
        release = opened(console, session, asset)
    talk = Conversation(release, writing)
    if memory and memory.exists():
        talk.load(memory, asset.name)
        console.print(f"{talk.seen} images are remembered from {escape(str(memory))}", highlight=False)

    def show(path: Path) -> None:
        talk.show(read_image(path, release.network.vision.square))
        if talk.number < talk.seen:
            console.print(f"[dim]image {talk.number} is forgotten: the next one takes its place[/]", highlight=False)
        told = f"[dim]image {talk.number}[/] [bold]{escape(str(path))}[/]: {escape(talk.ask())}"
        console.print(told, highlight=False, soft_wrap=True)
        if memory:
            talk.save(memory, asset.name)

    for path in images:
        show(path)
    console.print(HELP, style="dim")
    for line in map(str.strip, lines):
        try:
            if line == "/quit":
                return
            if line == "/forget":
                talk.forget()
                if memory:
                    talk.save(memory, asset.name)
            elif line.startswith("/show "):
                show(Path(line.removeprefix("/show ").strip()).expanduser())
            elif line:
                console.print(escape(talk.ask(line)), highlight=False, soft_wrap=True)
        except ValueError as error:  # a person may go on
            console.print(f"[red]{escape(str(error))}[/]", soft_wrap=True)


def read_image(path: Path, square: Square) -> Tensor:
    """Return an image file as (3, side, side) uint8, as images of shards come to a model, upright.

    Raises:
        ValueError: there is no such file, or it is no image that can be used.
    """
    import torch

    from storage.image_decoding import decode_square
    from tasks.image_text.picture import UnusableError, make_picture

    try:
        picture = make_picture(path.read_bytes(), ImageFormat(side=max(square.side, 256), max_aspect=100))
    except FileNotFoundError:
        raise ValueError(f"there is no image {path}; name a file") from None
    except UnusableError as error:
        raise ValueError(f"{path} cannot be used as an image ({error.status}); name another one") from error
    return torch.from_numpy(decode_square(picture.jpeg, *square)).permute(2, 0, 1)


def vlm_asset(store: AssetStore, model: str | None) -> Asset:
    """Return a model, by default the one that says what lists say of validation images likeliest.

    Only models of one language model compare: nats a token depend on what the tokens are.
    """

    def language(found: Asset) -> object:
        design = found.manifest.config["design"]
        return design["tokenizer"], design["model"]["language"]

    asset = store.find(model) if model else best(store, KINDS[0], "nll", least=True, alike=ALIKE, agreeing=language)
    if asset.manifest.kind not in KINDS:
        raise ValueError(f"{short_name(asset)} is no vision-language model; name one of kind {' or '.join(KINDS)}")
    return asset


def opened(console: Console, session: Session, asset: Asset) -> VlmRelease:
    """Return a model of a session that a run is recorded of, which then leads to all of it."""
    from tasks.vision_language.released import VlmRelease

    languages = (made_from(session.store, asset, kind) for kind in ALIKE[1:])
    for part in (asset, *languages):
        if part is not None:
            session.hold(part)
            part.fetch()
    console.print(f"model {short_name(asset)}", highlight=False)
    release = VlmRelease.from_release(asset.folder)
    release.network.vision.square = trained_square(session.store, asset, release.network.vision.square)
    return release


def trained_square(store: AssetStore, asset: Asset, square: Square) -> Square:
    """Return what a model is to be shown of any image: its middle, where the images of its shards are their middles."""
    with suppress(ValueError):  # shards that are gone, from which a model was made that stayed
        shards = made_from(store, asset, "image_text_shards")
        if shards is not None and shards.manifest.config["image"]["crop"] == "center":
            return square._replace(fit="crop")
    return square

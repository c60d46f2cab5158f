"""Configuration of image-text data: where lists come from, how images are fetched, and how shards are made."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.base import Config
from configs.image_text_sample import SampleScenes

TableColumn = Annotated[str, Field(min_length=1)]


class Columns(Config):
    """Which columns of a parquet file hold what."""

    url: TableColumn = "image_url"
    """The image's address."""
    caption: TableColumn | None = None
    """A text about the image."""
    question: TableColumn | None = None
    """A question about the image; needs `answer`."""
    answer: TableColumn | None = None
    """The answer to `question`, or to what `question_from` asks."""
    question_from: str | None = None
    """A question that is made of other columns, named in braces, for lists that have none: of PixMo count and points
    `How many {label} are there?`, with `count` as the answer."""
    sha256: TableColumn | None = None
    """SHA-256 of the image's bytes, which is then checked."""
    keep: tuple[TableColumn, ...] = ()
    """Further columns that travel along as JSON, e.g. points, count and label."""
    several_captions: bool = False
    """The column `caption` holds a list of captions in each row; every one becomes a row of its own."""

    def asked_about(self) -> tuple[str, ...]:
        """Return the columns that `question_from` names."""
        return tuple(re.findall(r"{([^{}]+)}", self.question_from or ""))

    @model_validator(mode="after")
    def _text(self) -> Self:
        if self.question and self.question_from:
            raise ValueError("question names a column, and question_from makes one of others; give one of the two")
        if bool(self.question or self.question_from) != bool(self.answer):
            raise ValueError("question and answer belong together; name both columns or none")
        if self.question_from and not self.asked_about():
            raise ValueError(f"question_from {self.question_from!r} names no column in braces, e.g. {{label}}")
        if self.caption is None and self.answer is None:
            raise ValueError("name the column that holds the caption, or those of question and answer")
        return self


class TsvLists(Config):
    """Lists of URL and caption as tab-separated text without header or quoting, as CC12M and CC3M have them."""

    kind: Literal["tsv"] = "tsv"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files (`.gz` as well), folders and globs."""
    order: Literal["auto", "url_first", "caption_first"] = "auto"
    """CC12M has the URL first, CC3M the caption; `auto` decides by a vote of many rows of each file."""
    columns: tuple[Literal["url", "caption", "ignore"], ...] = ()
    """What the columns hold, from left to right, where there are more than two: e.g. `[url, caption, ignore]`."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.columns and (self.columns.count("url"), self.columns.count("caption")) != (1, 1):
            raise ValueError("name one column url, one caption, and every other one ignore")
        return self


class ParquetLists(Config):
    """Lists of URLs with captions, or with questions and answers, as parquet files, as PixMo has them."""

    kind: Literal["parquet"] = "parquet"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders and globs."""
    columns: Columns
    """What the columns hold."""


class ImageFolder(Config):
    """Images on this machine, and a list of their captions."""

    kind: Literal["folder"] = "folder"
    path: str
    """The folder of images; searched with its subfolders."""
    captions: str
    """Tab-separated list of file name (relative to `path`) and caption, one row per caption; or questions with answers
    as JSON, in the form of VQAv2, GQA, TextVQA, or a list of objects with file, question and answer."""
    questions: str | None = None
    """Questions in a JSON file of their own, as VQAv2 has them beside its annotations."""


class ShardFolder(Config):
    """WebDataset tars on this machine: `jpg`, `png` or `webp` with `txt` or `json` of the same key."""

    kind: Literal["webdataset"] = "webdataset"
    paths: tuple[str, ...] = Field(min_length=1)
    """Tar files, folders and globs."""
    caption_field: str = "caption"
    """Field of the `json` member that holds the caption, where there is no `txt`."""
    several_captions: bool = False
    """That field holds a list of captions; every one becomes a row of its own."""


Source = Annotated[
    SampleScenes | TsvLists | ParquetLists | ImageFolder | ShardFolder,
    Field(discriminator="kind"),
]


class Selection(Config):
    """How much of the lists is used."""

    mode: Literal["metadata", "test", "images", "full"] = "full"
    """`metadata` reads and checks the lists and fetches nothing; `test` takes the first `test_rows` rows; `images` the
    first `max_images` images; `full` everything."""
    test_rows: int = Field(1000, ge=1)
    """Rows of mode `test`."""
    max_images: int = Field(100_000, ge=1)
    """Images of mode `images`; raising it later keeps every shard that is full."""


class Questions(Config):
    """Questions made from captions, for lists that have none."""

    from_captions: bool = False
    """Give every caption a question whose answer it is. Such rows are marked `templated`: they are descriptions, and
    exact match is never reported on them."""
    templates: tuple[str, ...] = Field(
        (
            "What is in this image?",
            "Describe this image.",
            "What can you see in this picture?",
            "What does this image show?",
            "Tell me about this image.",
        ),
        min_length=1,
    )
    """Questions, one of which is chosen for each row by its content."""


class Fetching(Config):
    """What counts as fetched; changes which images there are, so it is part of the key."""

    max_megabytes: float = Field(20.0, gt=0, le=200)
    """A body is cut off beyond this size, while it streams."""
    deadline_seconds: float = Field(30.0, gt=0, le=600)
    """One attempt, from the first packet to the last, redirects included."""
    retries: int = Field(2, ge=0, le=10)
    """Further attempts after time-outs, lost connections, name servers that fail, 429 and 5xx."""
    backoff_seconds: float = Field(1.0, ge=0, le=60)
    """Pause before the first retry; doubled for each further one. A server's Retry-After is honoured above it."""
    longest_pause_seconds: float = Field(30.0, ge=0, le=3600)
    """A server that asks for a longer pause is left alone; retry its images in a later run."""
    redirects: int = Field(5, ge=0, le=20)
    """Longest chain of redirects; every hop is checked like the first address."""
    opt_out: bool = True
    """Honour `X-Robots-Tag: noai, noimageai, noindex, noimageindex`."""
    private_addresses: bool = False
    """Fetch from private, loopback and link-local addresses too. Only for servers of your own."""


class Crawling(Config):
    """How fetching is carried out; changes no key."""

    IN_KEY = False

    connections: int = Field(128, ge=1, le=2048)
    """Requests in flight per worker process."""
    per_host: int = Field(8, ge=1, le=1024)
    """Requests in flight per host and worker process."""
    contact: str = ""
    """Web page or mail address in the User-Agent, so that server owners can reach you."""


class ImageFormat(Config):
    """What stored images look like: JPEG, RGB, upright."""

    side: int = Field(256, ge=16, le=4096)
    """Length of the shorter side in pixels; smaller images are not enlarged."""
    crop: Literal["none", "center"] = "none"
    """`center` keeps the middle square."""
    quality: int = Field(95, ge=50, le=100)
    """JPEG quality."""
    max_megapixels: float = Field(89.0, gt=0, le=500)
    """Larger images are refused by their header, before they are decoded."""
    min_side: int = Field(32, ge=1)
    """Images with a shorter side below this are left out."""
    max_aspect: float = Field(6.0, ge=1)
    """Images with a longer side of more than so many shorter sides are left out."""


RetryClass = Literal["timeout", "dns", "connect", "tls", "http_429", "http_5xx", "http_403", "short_body"]


class Retry(Config):
    """Failed images, tried again in a later run: raise `rounds` and run. Good shards stay as they are."""

    rounds: int = Field(0, ge=0, le=100)
    """How often the failed images of these classes were to be tried again; each round writes patch shards."""
    classes: tuple[RetryClass, ...] = ("timeout", "dns", "connect", "http_429", "http_5xx", "short_body")
    """Which failures."""


class Duplicates(Config):
    """Images that are there more than once; they stay in the tars and are left out of the index."""

    exact: Literal["exclude", "keep"] = "exclude"
    """Images of equal bytes: the first one in the order of the lists stays."""
    near: Literal["exclude", "keep"] = "exclude"
    """Images of nearly equal perceptual hash: the first one stays."""
    distance: int = Field(3, ge=0, le=16)
    """Largest number of differing bits (of 64) between near-duplicates."""


class ImageSplits(Config):
    """Training, validation and test by a hash of the image, so that all rows of an image are on one side."""

    validation_share: float = Field(0.02, ge=0, lt=1)
    """Share of the images for validation."""
    test_share: float = Field(0.02, ge=0, lt=1)
    """Share of the images for test."""
    seed: int = Field(0, ge=0)
    """Another seed, another split."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share + test_share must leave something for training (below 1)")
        return self


class ImageTextConfig(Config):
    """Lists of image URLs and texts to verified WebDataset shards and an index for training."""

    source: Source = SampleScenes()
    """Where lists or images come from."""
    select: Selection = Selection()
    """How much of them."""
    questions: Questions = Questions()
    """Questions made from captions."""
    fetching: Fetching = Fetching()
    """What counts as fetched."""
    crawling: Crawling = Crawling()
    """How fast; changes no key."""
    image: ImageFormat = ImageFormat()
    """What stored images look like."""
    images_per_shard: int = Field(10_000, ge=1, le=100_000)
    """Images listed in a shard; the tar holds those that arrived."""
    retry: Retry = Retry()
    """Trying failed images again."""
    duplicates: Duplicates = Duplicates()
    """Images that are there more than once."""
    splits: ImageSplits = ImageSplits()
    """Training, validation and test."""

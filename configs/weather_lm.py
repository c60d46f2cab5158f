"""Configuration of WeatherLM: captions, the masked autoencoder, language models, and the adapter between them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.base import Config
from configs.language import Adaptation, LanguageModelConfig, LlamaLanguageConfig
from configs.prefixer import PrefixerConfig
from configs.quantise import QuantiseRecipe
from configs.sat_swin_mae import SwinMaeConfig
from configs.training import TrainingConfig, check_groups
from configs.weather import SampleSource

# -- captions -----------------------------------------------------------------------------------------------------


class SampleCaptions(Config):
    """The captions that the generated weather comes with."""

    kind: Literal["sample"] = "sample"


class CaptionFiles(Config):
    """CSV files with a date and a text per row; the text is plain, or a JSON list of regions and descriptions."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders (searched recursively for *.csv) or globs."""
    date_column: str | None = None
    """Column of the date; found by its name when absent."""
    text_column: str | None = None
    """Column of the text; found by its name when absent."""
    region_column: str | None = None
    """Column of the region, where texts are plain; found by its name when absent."""
    regions: str | None = None
    """CSV with the columns region, north, west, south, east: places that the built-in table lacks, or has wrong."""


class JoinConfig(Config):
    """Which windows a caption belongs to: those whose anchor step lies on its date, over its region."""

    unplaced: Literal["drop", "everywhere"] = "drop"
    """Captions without a known region: leave them out, or pair them with every window of their date. A text about
    somewhere on the globe teaches nothing about a crop of it."""
    min_region_share: float = Field(0.7, ge=0, le=1)
    """Share of the region's area that a window must show, unless it lies mostly inside of the region."""
    min_window_share: float = Field(0.7, ge=0, le=1)
    """Share of the window's area that a region must cover, unless the window shows most of it."""
    min_day_share: float = Field(0.5, ge=0, le=1)
    """Share of a window's steps that must lie on the caption's date."""
    drop_if_no_caption: bool = True
    """Train on windows with captions only; otherwise every caption needs a window, and a date without one is an
    error."""


class CaptionConfig(Config):
    """Texts about the weather, by date and region."""

    source: Annotated[SampleCaptions | CaptionFiles, Field(discriminator="kind")] = SampleCaptions()
    """Where captions come from."""
    join: JoinConfig = JoinConfig()
    """How captions and windows are brought together."""


# -- vision -------------------------------------------------------------------------------------------------------


class MaeRecipe(Config):
    """How SatSwinMAE is pretrained on windows without captions."""

    model: SwinMaeConfig = SwinMaeConfig()
    """Architecture."""
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the cells of the deepest stage that are hidden."""
    latitude_weighting: bool = False
    """Weigh errors by the cosine of latitude, that is by area."""
    validation_windows: int = Field(256, ge=1)
    """Most validation windows that an evaluation looks at, evenly spaced, each under its own fixed mask."""
    report_windows: int = Field(96, ge=1)
    """Most windows of the test and of the validation period that the report compares with the baselines."""
    training: TrainingConfig
    """Optimisation; the one parameter group is `all`."""

    @model_validator(mode="after")
    def _groups(self) -> Self:
        check_groups(self.training, "all")
        return self


class Int8Vision(Config):
    """The vision model in 8-bit integers, for ONNX Runtime."""

    windows: int = Field(32, ge=1)
    """Validation windows on which it is compared with the exact one, evenly spaced."""


# -- language -----------------------------------------------------------------------------------------------------


class CaptionText(Config):
    """The captions of the training period: what the narrator is trained on too, without the windows."""

    kind: Literal["captions"] = "captions"


class SampleText(Config):
    """Texts about another stretch of generated weather; no window is made of it."""

    kind: Literal["sample"] = "sample"
    weather: SampleSource
    """Its period, area and seed."""


class TextTraining(Config):
    """A tokenizer and a language model are trained here, on texts alone, before the narrator is."""

    text: Annotated[CaptionText | SampleText, Field(discriminator="kind")] = CaptionText()
    """What they are trained on."""
    vocabulary: int = Field(2048, ge=300, le=200_000)
    """Most tokens of the byte-level BPE tokenizer."""
    length: int = Field(192, ge=16)
    """Tokens of a training sequence; a longer document is cut."""
    regions: int = Field(2, ge=1)
    """Regions of one date that a training sequence tells about, all wordings in random order: to foretell a text that
    was told before in other words, the model has to look its region up, and copy. Soft prompts are read the same
    way."""
    held_out: float = Field(0.05, gt=0, lt=1)
    """Share of the documents that evaluations use."""
    training: TrainingConfig
    """Optimisation; the one parameter group is `all`."""

    @model_validator(mode="after")
    def _groups(self) -> Self:
        check_groups(self.training, "all")
        return self


class LanguageRecipe(Config):
    """A language model that narrators can be built on."""

    model: LanguageModelConfig = LlamaLanguageConfig()
    """Architecture and, unless it is trained here, where its weights are."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer; that of the pretrained model when absent."""
    prompt: str = "{region}:"
    """Text between the soft prompt and the caption, with {region} and {date}; narrators never count it in their
    loss."""
    text: TextTraining | None = None
    """Train it here, from random weights."""

    @model_validator(mode="after")
    def _source(self) -> Self:
        pretrained = getattr(self.model, "pretrained", None)
        if self.text is not None and pretrained:
            raise ValueError(f"text would train a model from scratch, but model.pretrained is {pretrained}; drop one")
        if self.text is not None and self.tokenizer:
            raise ValueError("text trains a tokenizer of its own; leave tokenizer out")
        if self.text is None and not (pretrained or self.tokenizer):
            raise ValueError("a model with random weights needs text to be trained on, or at least a tokenizer")
        return self

    @property
    def tokenizer_source(self) -> str:
        """Hub id or folder of the tokenizer of a model that is not trained here."""
        source = self.tokenizer or getattr(self.model, "pretrained", None)
        assert source, "a recipe without text names a tokenizer or a pretrained model"
        return source


# -- the adapter --------------------------------------------------------------------------------------------------


class NarratorRecipe(Config):
    """How one adapter is trained between a frozen encoder and a frozen language model."""

    language: str
    """Name of the language model in `languages`."""
    vision: bool = True
    """False: it is told where and when a window is and sees none of its fields. What one knows who was trained so is
    the climate, and a narrator that looks has to know more."""
    adaptation: Adaptation = Adaptation()
    """What of the language model is trained besides; nothing by default."""
    prefixer: PrefixerConfig = PrefixerConfig()
    """The adapter."""
    max_caption_tokens: int = Field(128, ge=4)
    """Longest caption in tokens, its end included; longer ones are cut, and counted."""
    max_prompt_tokens: int = Field(32, ge=1)
    """Most tokens of the prompt, its beginning included; a longer one is an error."""
    validation_samples: int = Field(256, ge=8)
    """Most validation pairs that an evaluation looks at, evenly spaced."""
    training: TrainingConfig
    """Optimisation; groups `adapter`, and `language` where the adaptation trains some of it."""

    @model_validator(mode="after")
    def _groups(self) -> Self:
        adapted = self.adaptation.lora is not None or self.adaptation.unfreeze_last_block
        check_groups(self.training, "adapter", *(["language"] if adapted else []))
        return self


class PackedNarrator(Config):
    """A narrator, packed into few bits as it is, with its vision model and its language model."""

    narrator: str
    """Whose models, those of all seeds."""
    recipe: QuantiseRecipe
    """How. It names layers as in `language.hf.model.layers.*`, `encoder.*` and `adapter.mlp.*`; `ternary` has to be
    given, be it as `[]`, for ternary layers that were not trained so say little."""

    @model_validator(mode="after")
    def _said(self) -> Self:
        if "ternary" not in self.recipe.model_fields_set:
            raise ValueError("say in recipe.ternary which layers become ternary; [] leaves all of them out")
        return self


class NarrationEvaluation(Config):
    """How narrators are judged, on windows of the test period."""

    samples: int = Field(512, ge=8)
    """Most pairs of window and caption whose likelihood is taken."""
    texts: int = Field(64, ge=4)
    """Most of them for which a text is written."""
    max_new_tokens: int = Field(96, ge=4)
    """Longest text."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the likeliest token each time."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Mass of the tokens that sampling draws from, where the temperature is above 0."""
    seed: int = Field(0, ge=0)
    """Of sampling, of shuffling and of the bootstrap."""
    resamples: int = Field(2000, ge=100)
    """Resamples of whole spells of weather for the 95 % intervals."""
    pictures: int = Field(4, ge=1, le=16)
    """Texts that are shown with their maps."""

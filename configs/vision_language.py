"""Configuration of vision-language models: a vision tower, an adapter, a language model and an episodic memory."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from configs.base import Config
from configs.language import AutoLanguageConfig, LanguageModelConfig
from configs.vision_language_memory import MemoryConfig

FEWEST_TOKENS, MOST_TOKENS, PATCHES_PER_TOKEN = 8, 64, 8
Injection = Literal["key_value", "prefix"]
Fit = Literal["crop", "pad"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Square(NamedTuple):
    """The pixels that a model sees of an image of any shape."""

    side: int
    """Height and width."""
    fit: Fit
    """`pad`: the whole image, centred on black; `crop`: its middle."""


class VitSizes(Config):
    """Sizes of a vision transformer that starts at random; those of DeiT-Tiny by default."""

    side: int = Field(224, ge=16, le=1024)
    """Height and width of an image in pixels."""
    patch: int = Field(16, ge=2, le=64)
    """Height and width of a patch in pixels."""
    hidden: int = Field(192, ge=8, le=4096)
    """Channels of a token."""
    layers: int = Field(12, ge=1, le=64)
    """Transformer blocks."""
    heads: int = Field(3, ge=1, le=64)
    """Attention heads."""
    intermediate: int = Field(768, ge=8, le=16384)
    """Channels inside the feed-forward layers."""
    stem: tuple[Annotated[int, Field(ge=8, le=1024)], ...] = Field((), max_length=6)
    """Channels of convolutions in front of the patches, each of which halves height and width, as in early
    convolutions help transformers see better (arXiv 2106.14881). None: patches of pixels, as ViT was published."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.side % self.patch or self.hidden % self.heads:
            raise ValueError(f"patch ({self.patch}) must divide side ({self.side}), and heads the hidden channels")
        if self.patch % self.shrunk:
            raise ValueError(
                f"a stem of {len(self.stem)} convolutions makes images {self.shrunk} times smaller, which must divide "
                f"patch ({self.patch})"
            )
        return self

    @property
    def shrunk(self) -> int:
        """How many times smaller images are behind the stem."""
        return 2 ** len(self.stem)


class _Tower(Config):
    """What vision towers have in common."""

    pretrained: str | None
    sizes: VitSizes | None = None
    """Sizes of a model that starts at random."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit = "pad"
    """What of a long image the model sees. `pad`: all of it, centred on black, since what is said or asked may lie at
    its ends; `crop`: the middle square, as DeiT and CLIP were trained."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pretrained and self.sizes:
            raise ValueError("sizes belong to random weights; set pretrained to null, or drop sizes")
        return self


class VitConfig(_Tower):
    """A vision transformer, for example DeiT-Tiny (arXiv 2012.12877)."""

    BUILDS = "models.vision_language.vision:Vit"
    kind: Literal["vit"] = "vit"
    pretrained: str | None = "facebook/deit-tiny-patch16-224"
    """Hub id or local folder of a ViT. Null: random, with `sizes`."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of red, green and blue from 0 to 1, by which images are normalised."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation likewise."""


class ClipVisionConfig(_Tower):
    """The image side of CLIP (arXiv 2103.00020), for example ViT-L/14 at 336 pixels."""

    BUILDS = "models.vision_language.vision:ClipVision"
    kind: Literal["clip"] = "clip"
    pretrained: str | None = "openai/clip-vit-large-patch14-336"
    """Hub id or local folder of a CLIP. Null: random, with `sizes`."""
    mean: tuple[float, float, float] = CLIP_MEAN
    """Of red, green and blue from 0 to 1, by which images are normalised."""
    std: tuple[float, float, float] = CLIP_STD
    """Standard deviation likewise."""


TowerConfig = Annotated[VitConfig | ClipVisionConfig, Field(discriminator="kind")]


class AdapterConfig(Config):
    """From the tokens of the vision tower to the prefix that the language model reads in front of a text."""

    tokens: int | None = Field(None, ge=1, le=1024)
    """Prefix tokens; an eighth of the patches, from 8 to 64, when absent."""
    heads: int = Field(4, ge=1)
    """Attention heads of the pooling."""

    def tokens_of(self, patches: int) -> int:
        """Return the number of prefix tokens for so many patches.

        >>> AdapterConfig().tokens_of(196)
        25
        """
        return self.tokens or min(max(math.ceil(patches / PATCHES_PER_TOKEN), FEWEST_TOKENS), MOST_TOKENS)


class AlignmentConfig(Config):
    """The space in which images and texts are compared."""

    width: int = Field(256, ge=8)
    """Channels of the space."""
    text_layers: int = Field(1, ge=1, le=12)
    """Transformer blocks over the language model's token embeddings."""
    heads: int = Field(4, ge=1)
    """Attention heads of these blocks."""
    longest: int = Field(64, ge=8)
    """Tokens of a text that are looked at."""
    by_words: bool = False
    """Compare words with patches too (FILIP, arXiv 2111.07783), as a loss of its own."""


class RecallConfig(Config):
    """How the model recalls: what is written, how it is asked for, and how the language model gets it."""

    memory: MemoryConfig = MemoryConfig()
    """The Gaussian memory."""
    injection: Injection = "key_value"
    """`key_value`: what is read becomes a key and a value of every layer; `prefix`: a token in front of the text."""
    vectors: int = Field(1, ge=1, le=64)
    """Keys and values of every layer, or tokens, that one reading becomes."""
    steps: int = Field(16, ge=2, le=1024)
    """Images that are told apart by when they were seen."""


class MicroVlmModelConfig(Config):
    """MicroVLM-V: a small vision tower, a prefix, a small language model and an episodic memory."""

    BUILDS = "models.vision_language.microvlm:MicroVLM"
    vision: VitConfig = VitConfig()
    """Vision tower."""
    adapter: AdapterConfig = AdapterConfig()
    """Adapter."""
    alignment: AlignmentConfig = AlignmentConfig()
    """Contrastive alignment."""
    recall: RecallConfig = RecallConfig()
    """Episodic memory."""
    language: LanguageModelConfig = AutoLanguageConfig(pretrained="Qwen/Qwen2.5-0.5B")
    """Language model."""

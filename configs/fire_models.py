"""Configuration of the wildfire models and of their losses."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.base import Config

Width = Annotated[int, Field(ge=1, le=2048)]


class UnetDecoderConfig(Config):
    """A small pixel U-Net that starts at half resolution; tokens join the stage whose stride is the patch."""

    BUILDS = "models.fire.unet_decoder:UnetDecoder"
    kind: Literal["unet"] = "unet"
    widths: tuple[Width, ...] = Field((32, 64, 96, 128), min_length=1, max_length=6)
    """Channels of the stages, at strides 2, 4, 8 ..."""
    depth: int = Field(2, ge=1, le=6)
    """Convolutions per stage on the way down; one less on the way up."""
    features: int = Field(16, ge=1, le=256)
    """Channels of the pixel features that the head reads."""


class SegformerDecoderConfig(Config):
    """The all-MLP decode head of SegFormer (arXiv 2105.15203) over a pyramid made from pixels and tokens."""

    BUILDS = "models.fire.segformer_decoder:SegformerDecoder"
    kind: Literal["segformer"] = "segformer"
    pretrained: str | None = None
    """Hub id or local folder of a SegformerForSemanticSegmentation, e.g. `nvidia/segformer-b0-finetuned-ade-512-512`;
    only its decode head is loaded. Random when absent."""
    hidden_sizes: tuple[Width, ...] | None = Field(None, min_length=1, max_length=5)
    """Channels of the pyramid at strides 4, 8, 16 ...; the b0 sizes (32, 64, 160, 256) when absent."""
    decoder_hidden_size: int | None = Field(None, ge=1, le=2048)
    """Channels of the decode head; 256 when absent, as in b0."""
    features: int = Field(16, ge=1, le=256)
    """Channels of the pixel features that the head reads."""

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.pretrained and (self.hidden_sizes or self.decoder_hidden_size):
            raise ValueError("hidden_sizes and decoder_hidden_size come with the pretrained model; leave them out")
        return self


class UnetResnetDecoderConfig(Config):
    """A ResNet (arXiv 1512.03385) as pixel encoder and a U-Net decoder that tokens join."""

    BUILDS = "models.fire.resnet_decoder:UnetResnetDecoder"
    kind: Literal["unet_resnet"] = "unet_resnet"
    pretrained: str | None = None
    """Hub id or local folder of a ResNetModel, e.g. `microsoft/resnet-34`. Random when absent."""
    depth: Literal[18, 34, 50] | None = None
    """Layers of a ResNet that starts at random; 18 when absent."""
    hidden_sizes: tuple[Width, Width, Width, Width] | None = None
    """Channels of its stages at strides 4, 8, 16 and 32; the standard ones when absent."""
    widths: tuple[Width, Width, Width, Width] = (24, 48, 64, 96)
    """Channels of the U-Net decoder at strides 2, 4, 8 and 16."""
    features: int = Field(16, ge=1, le=256)
    """Channels of the pixel features that the head reads."""

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.pretrained and (self.hidden_sizes or self.depth):
            raise ValueError("depth and hidden_sizes come with the pretrained model; leave them out")
        if self.depth == 50 and self.hidden_sizes and any(size % 4 for size in self.hidden_sizes):
            raise ValueError(
                "hidden_sizes of a ResNet-50 must be multiples of 4, because its bottlenecks are a quarter"
            )
        return self


class SamDecoderConfig(Config):
    """The mask decoder of Segment Anything (arXiv 2304.02643): tokens are its image, the last frame is its prompt."""

    BUILDS = "models.fire.sam_decoder:SamDecoder"
    kind: Literal["sam"] = "sam"
    pretrained: str | None = None
    """Hub id or local folder of a SamModel, e.g. `facebook/sam-vit-base`; only its mask decoder, its mask prompt
    encoder and its positional encoding are loaded. Random when absent."""
    hidden_size: int | None = Field(None, ge=32, le=1024, multiple_of=32)
    """Channels of the mask decoder; 256 when absent, as published."""
    num_hidden_layers: int | None = Field(None, ge=1, le=12)
    """Layers of its two-way transformer; 2 when absent, as published."""
    features: int = Field(16, ge=1, le=256)
    """Channels of the pixel features that the head reads."""

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.pretrained and (self.hidden_size or self.num_hidden_layers):
            raise ValueError("hidden_size and num_hidden_layers come with the pretrained model; leave them out")
        return self


Decoder = Annotated[
    UnetDecoderConfig | SegformerDecoderConfig | UnetResnetDecoderConfig | SamDecoderConfig, Field(discriminator="kind")
]


class Head(StrEnum):
    """From pixel features to logits."""

    RESIDUAL = "residual"
    """A residual on the last frame, pixel by pixel."""
    FRONT = "front"
    """A learned front of minimum travel time."""

    @property
    def BUILDS(self) -> str:  # noqa: N802
        """What the head is, as `module:Class`."""
        return {"residual": "models.fire.output:ResidualHead", "front": "models.fire.spread_front:SpreadFront"}[self]


class FireModelConfig(Config):
    """What the configurations of fire models have in common."""

    def auxiliary_weights(self) -> dict[str, float]:
        """Return the weight in the loss of each further output that the model gives."""
        return {}

    def longest_history(self) -> int | None:
        """Return how many frames the model looks at, at most; None where it takes any number."""
        return None


class EmberFormerConfig(FireModelConfig):
    """A transformer over each patch's history, and a spatial decoder that also sees the pixels."""

    BUILDS = "models.fire.emberformer:EmberFormer"
    kind: Literal["emberformer"] = "emberformer"
    d_model: int = Field(64, ge=4, le=1024)
    """Channels of a token."""
    nhead: int = Field(4, ge=1, le=64)
    """Attention heads."""
    num_layers: int = Field(3, ge=1, le=24)
    """Temporal layers."""
    feedforward: int = Field(2, ge=1, le=8)
    """Width of the feed-forward layers, as a multiple of d_model."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of the transformer layers."""
    max_history: int = Field(6, ge=1, le=64)
    """Frames that are looked at, the last one included."""
    spatial_layers: int = Field(0, ge=0, le=12)
    """Attention layers across the tokens of a sample, after the temporal ones."""
    decoder: Decoder = UnetDecoderConfig()
    """From tokens and pixels to pixel features."""
    head: Head = Head.RESIDUAL
    """From pixel features to logits: a residual on the last frame, or a learned front of minimum travel time."""
    edge_weight: float = Field(0.0, ge=0, le=10)
    """Weight of the auxiliary loss on the next frame's perimeter; its head is built where this is above 0."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.d_model % self.nhead:
            raise ValueError(f"d_model ({self.d_model}) must be a multiple of nhead ({self.nhead})")
        if self.spatial_layers and self.d_model % 4:
            raise ValueError(f"d_model ({self.d_model}) must be a multiple of 4 where spatial_layers are used")
        return self

    def longest_history(self) -> int:
        """Return `max_history`."""
        return self.max_history

    def auxiliary_weights(self) -> dict[str, float]:
        """Return the weight of the perimeter's loss, where its head is built."""
        return {"edge": self.edge_weight} if self.edge_weight > 0 else {}


class UNetSConfig(FireModelConfig):
    """A plain U-Net on raw pixels: last two frames, classes, slope, wind."""

    BUILDS = "models.fire.unet_s:UNetS"
    kind: Literal["unet_s"] = "unet_s"
    widths: tuple[Width, ...] = Field((24, 48, 88, 160), min_length=1, max_length=6)
    """Channels of the stages, at strides 1, 2, 4 ..."""
    depth: int = Field(2, ge=1, le=6)
    """Convolutions per stage and direction."""
    head: Head = Head.RESIDUAL
    """From pixel features to logits."""


class UNetSTokensConfig(FireModelConfig):
    """A U-Net on the grid of patches, whose logits are repeated over the pixels of their patch."""

    BUILDS = "models.fire.unet_s_tokens:UNetSTokens"
    kind: Literal["unet_s_tokens"] = "unet_s_tokens"
    widths: tuple[Width, ...] = Field((48, 96, 192), min_length=1, max_length=6)
    """Channels of the stages, at 1, 2, 4 ... patches."""
    depth: int = Field(2, ge=1, le=6)
    """Convolutions per stage and direction."""


class ConvHead2DConfig(FireModelConfig):
    """Three 2D convolutions over the last frame, the terrain and the wind."""

    BUILDS = "models.fire.conv_head_2d:ConvHead2D"
    kind: Literal["conv_head_2d"] = "conv_head_2d"
    width: int = Field(32, ge=1, le=512)
    """Channels of the hidden layers."""


class Tiny3DConfig(FireModelConfig):
    """Two 3D convolutions over the last five frames."""

    BUILDS = "models.fire.tiny_3d:Tiny3D"
    kind: Literal["tiny_3d"] = "tiny_3d"
    width: int = Field(16, ge=1, le=512)
    """Channels of the hidden layers."""


class CopyLastConfig(FireModelConfig):
    """The next frame is the last one; nothing is learned."""

    BUILDS = "models.fire.copy_last:CopyLast"
    kind: Literal["copy_last"] = "copy_last"


FireModel = Annotated[
    EmberFormerConfig | UNetSConfig | UNetSTokensConfig | ConvHead2DConfig | Tiny3DConfig | CopyLastConfig,
    Field(discriminator="kind"),
]


class LossConfig(Config):
    """What is minimised; every term counts domain pixels only."""

    kind: Literal["bce", "bce_dice", "focal_tversky"] = "bce_dice"
    """Weighted binary cross-entropy, the same plus Dice, or focal plus Tversky."""
    focus: Literal["growth", "all"] = "growth"
    """`growth` leaves out pixels that already burn: they are known, and logits there are fixed."""
    pos_weight: float | Literal["auto"] = 1.0
    """Weight of burnt pixels in the cross-entropy; `auto` is unburnt / burnt pixels of each sample (1 where none
    burns), so that it never depends on batch mates."""
    max_pos_weight: float = Field(20.0, ge=1)
    """Upper limit of the automatic pos_weight."""
    region_weight: float = Field(0.1, ge=0)
    """Weight of the Dice or Tversky term beside the cross-entropy or focal term."""
    focal_gamma: float = Field(2.0, ge=0)
    """Exponent by which the focal loss (arXiv 1708.02002) plays down easy pixels."""
    tversky_alpha: float = Field(0.3, ge=0, le=1)
    """Weight of false alarms in the Tversky index (arXiv 1706.05721)."""
    tversky_beta: float = Field(0.7, ge=0, le=1)
    """Weight of misses in the Tversky index."""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.pos_weight != "auto" and self.pos_weight <= 0:
            raise ValueError(f"pos_weight ({self.pos_weight}) must be above 0")
        return self

"""Configuration of the language models that write weather narratives, and of how they are adapted."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from configs.base import Added, Config

Width = Annotated[int, Field(ge=8, le=16384)]
Layers = Annotated[int, Field(ge=1, le=128)]
Heads = Annotated[int, Field(ge=1, le=128)]
Cycles = Annotated[int, Field(ge=1, le=16)]
Positions = Annotated[int, Field(ge=8, le=131_072)]


def check_heads(hidden: int, heads: int) -> None:
    """Refuse heads that rotary positions cannot turn."""
    if hidden % (2 * heads):
        raise ValueError(f"hidden ({hidden}) must be a multiple of twice the heads ({heads}): RoPE turns pairs")


def _check_groups(heads: int, kv_heads: int) -> None:
    if heads % kv_heads:
        raise ValueError(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")


def _check_source(pretrained: str | None, sizes: Config | None) -> None:
    if pretrained and sizes:
        raise ValueError("sizes come with the pretrained model; leave them out, or set pretrained to null")
    if not pretrained and not sizes:
        raise ValueError("name a pretrained model, or the sizes of one that starts at random")


class LlamaSizes(Config):
    """Sizes of a Llama that starts at random; those of TinyLlama-1.1B when absent."""

    hidden: Width = 2048
    """Channels of a token."""
    layers: Layers = 22
    """Transformer blocks."""
    heads: Heads = 32
    """Attention heads."""
    kv_heads: Heads = 4
    """Heads of keys and values, each of which serves heads / kv_heads queries."""
    intermediate: Width = 5632
    """Channels inside the feed-forward layers."""
    positions: Positions = 2048
    """Longest sequence, soft prompts included."""
    tied: Annotated[bool, Added(before=False)] = False
    """Whether the embedding table is the output layer too, as in SmolLM2."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_heads(self.hidden, self.heads)
        _check_groups(self.heads, self.kv_heads)
        return self


class Qwen2Sizes(Config):
    """Sizes of a Qwen2 that starts at random; those of Qwen2.5-0.5B when absent."""

    hidden: Width = 896
    """Channels of a token."""
    layers: Layers = 24
    """Transformer blocks."""
    heads: Heads = 14
    """Attention heads."""
    kv_heads: Heads = 2
    """Heads of keys and values, each of which serves heads / kv_heads queries."""
    intermediate: Width = 4864
    """Channels inside the feed-forward layers."""
    positions: Positions = 32_768
    """Longest sequence, soft prompts included."""
    tied: bool = True
    """Whether the embedding table is the output layer too."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_heads(self.hidden, self.heads)
        _check_groups(self.heads, self.kv_heads)
        return self


class LanguageConfig(Config):
    """What the configurations of language models have in common."""

    BUILDS: ClassVar[str]

    DEEP: ClassVar[bool] = False
    """Whether it is trained by a loss of its own, deep supervision."""


class LlamaLanguageConfig(LanguageConfig):
    """A Llama decoder, for example TinyLlama (arXiv 2401.02385) or SmolLM2 (arXiv 2502.02737)."""

    BUILDS = "models.language.llama:Llama"
    kind: Literal["llama"] = "llama"
    pretrained: str | None = "TinyLlama/TinyLlama_v1.1"
    """Hub id or local folder of a LlamaForCausalLM. Null: random, with `sizes`."""
    sizes: LlamaSizes | None = None
    """Sizes of a model that starts at random."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_source(self.pretrained, self.sizes)
        return self


class Qwen2LanguageConfig(LanguageConfig):
    """A Qwen2 decoder, for example Qwen2.5-0.5B (arXiv 2412.15115)."""

    BUILDS = "models.language.qwen2:Qwen2"
    kind: Literal["qwen2"] = "qwen2"
    pretrained: str | None = "Qwen/Qwen2.5-0.5B"
    """Hub id or local folder of a Qwen2ForCausalLM. Null: random, with `sizes`."""
    sizes: Qwen2Sizes | None = None
    """Sizes of a model that starts at random."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_source(self.pretrained, self.sizes)
        return self


class HrmTextSizes(Config):
    """Sizes of an HRM-Text that starts at random; those of HRM-Text-1B when absent."""

    hidden: Width = 1536
    """Channels of a token."""
    layers: Layers = 16
    """Transformer blocks of the H module, and as many of the L module."""
    heads: Heads = 12
    """Attention heads."""
    intermediate: Width = 4096
    """Channels inside the feed-forward layers."""
    h_cycles: Cycles = 2
    """Updates of the slow state."""
    l_cycles: Cycles = 3
    """Updates of the fast state for each one of the slow state."""
    positions: Positions = 2048
    """Longest sequence, soft prompts included."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_heads(self.hidden, self.heads)
        return self


class HrmTextLanguageConfig(LanguageConfig):
    """HRM-Text (arXiv 2605.20613), the hierarchical reasoning model that was pretrained on text."""

    BUILDS = "models.language.hrm_text:HrmText"
    kind: Literal["hrm_text"] = "hrm_text"
    pretrained: str | None = "sapientinc/HRM-Text-1B"
    """Hub id or local folder of an HrmTextForCausalLM. Null: random, with `sizes`."""
    sizes: HrmTextSizes | None = None
    """Sizes of a model that starts at random."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_source(self.pretrained, self.sizes)
        return self


class HrmActV1Config(LanguageConfig):
    """HRM-ACTv1 (arXiv 2506.21734) made causal. It always starts at random: no text weights were ever published."""

    BUILDS = "models.language.hrm_act_lm:HrmActLM"
    DEEP = True
    kind: Literal["hrm_act_v1"] = "hrm_act_v1"
    hidden: Width = 512
    """Channels of a token."""
    h_layers: Layers = 4
    """Transformer blocks of the H module, which updates the slow state."""
    l_layers: Layers = 4
    """Transformer blocks of the L module, which updates the fast state."""
    h_cycles: Cycles = 2
    """Updates of the slow state in one ACT step."""
    l_cycles: Cycles = 2
    """Updates of the fast state for each one of the slow state."""
    heads: Heads = 8
    """Attention heads."""
    expansion: float = Field(4.0, ge=1, le=8)
    """Width of the feed-forward layers; SwiGLU takes two thirds of it, rounded up to a multiple of 256."""
    positions: Positions = 512
    """Longest sequence, soft prompts included."""
    max_steps: int = Field(8, ge=2, le=64)
    """ACT steps after which a sequence halts in any case."""
    evaluation_steps: int | None = Field(None, ge=1, le=64)
    """ACT steps of every forward pass outside the ACT loss; max_steps when absent, as published."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_heads(self.hidden, self.heads)
        return self


class AutoLanguageConfig(LanguageConfig):
    """Any other causal language model that transformers knows."""

    BUILDS = "models.language.auto:AutoLM"
    kind: Literal["auto"] = "auto"
    pretrained: str
    """Hub id or local folder of a causal language model, e.g. `openai-community/gpt2`."""


LanguageModelConfig = Annotated[
    LlamaLanguageConfig | Qwen2LanguageConfig | HrmTextLanguageConfig | HrmActV1Config | AutoLanguageConfig,
    Field(discriminator="kind"),
]


class LoraSettings(Config):
    """Low-rank adapters beside frozen linear layers (arXiv 2106.09685)."""

    r: int = Field(16, ge=1, le=512)
    """Rank of the update."""
    alpha: float = Field(32.0, gt=0, le=1024)
    """The update is scaled by alpha / r."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of an adapter's input."""
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Names of the linear layers that get one."""


class Adaptation(Config):
    """What of a language model is trained; the rest is frozen. By default all of it is."""

    four_bit: bool = False
    """Store the frozen linear layers as NF4 with double quantisation (QLoRA, arXiv 2305.14314); computed in bf16."""
    lora: LoraSettings | None = None
    """Train low-rank adapters."""
    unfreeze_last_block: bool = False
    """Train the last transformer block in full."""
    gradient_checkpointing: bool = False
    """Compute activations a second time in the backward pass instead of keeping them."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.four_bit and self.unfreeze_last_block:
            raise ValueError("unfreeze_last_block cannot train 4-bit weights; use lora, or set four_bit to false")
        return self

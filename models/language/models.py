"""Language models behind one small interface: soft prompts in, logits or text out; frozen, adapted or trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    HrmTextConfig,
    HrmTextForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from configs.language import (
    Adaptation,
    AutoLanguageConfig,
    HrmActV1Config,
    HrmTextLanguageConfig,
    HrmTextSizes,
    LanguageModelConfig,
    LlamaLanguageConfig,
    LlamaSizes,
    LoraSettings,
)
from models.language.hrm_act import HrmAct, log_stablemax, visible_keys
from models.pretrained import load_pretrained

WHOLLY_CAUSAL = (LlamaConfig, HrmTextConfig)
"""Architectures in which every layer sees all that comes before, so that one mask says everything."""


class LanguageModel(nn.Module, ABC):
    """A causal language model that reads embeddings.

    Embeddings, of tokens and of soft prompts alike, are on the scale of the model's embedding table; what the model
    multiplies them by is its own affair. Modules whose parameters are frozen stay in evaluation mode.
    """

    FUSED: ClassVar[dict[str, str]] = {}
    """Linear layers that hold another one, by the name that LoRA settings use for it."""

    width: int
    """Channels of an embedding."""
    vocabulary: int
    """Number of token ids that logits are given for."""
    positions: int
    """Longest sequence."""

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., width) of token ids."""

    @abstractmethod
    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (B, S, vocabulary), whose softmax at i is the distribution of the token at i + 1.

        `inputs_embeds` (B, S, width); `attention_mask` (B, S) is nonzero at tokens and zero at padding.
        """

    @abstractmethod
    def _next(self, inputs_embeds: Tensor, attention_mask: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """Return logits (B, vocabulary) of the next token, and a memory of all that was read.

        `inputs_embeds` is what the memory, None at first, has not seen yet; the mask covers both.
        """

    @property
    @abstractmethod
    def embedding_table(self) -> Tensor:
        """(rows, width)."""

    @property
    @abstractmethod
    def last_block(self) -> nn.Module:
        """The transformer block that is computed last."""

    @property
    @abstractmethod
    def heads(self) -> list[nn.Module]:
        """Linear layers that 4-bit quantisation leaves alone."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """Compute activations of blocks a second time in the backward pass instead of keeping them."""

    def embedding_scale(self) -> float:
        """Return the root mean square of the embedding table, which soft prompts should match."""
        return self.embedding_table.detach().float().square().mean().sqrt().item()

    def freeze(self) -> None:
        """Train nothing of this model."""
        self.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; what is frozen stays in evaluation mode, without dropout."""
        super().train(False)
        self.training = mode and any(parameter.requires_grad for parameter in self.parameters())
        for child in self.children() if mode else ():
            _train_unfrozen(child)
        return self

    @torch.no_grad()
    def generate(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        end: int,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """Continue each prompt (B, S, width) until the token `end`; return the new tokens without it.

        Temperature 0 takes the likeliest token. Otherwise it is drawn with `generator` from the smallest set of
        tokens that has the probability `top_p`. Prompts of different length are padded on the left.
        """
        self._check_prompts(inputs_embeds, attention_mask, max_new_tokens)
        chosen: list[Tensor] = []
        memory = None
        finished = torch.zeros(len(inputs_embeds), dtype=torch.bool, device=inputs_embeds.device)
        with _evaluating(self):
            while len(chosen) < max_new_tokens and not finished.all():
                logits, memory = self._next(inputs_embeds, attention_mask, memory)
                token = _choose(logits.float(), temperature, top_p, generator)
                chosen.append(token)
                finished |= token == end
                inputs_embeds = self.embed_tokens(token[:, None]).to(inputs_embeds.dtype)
                attention_mask = torch.cat([attention_mask, torch.ones_like(attention_mask[:, :1])], 1)
        rows = torch.stack(chosen, 1).tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]

    def _check_prompts(self, inputs_embeds: Tensor, attention_mask: Tensor, max_new_tokens: int) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; ask for at least 1")
        self._check_length(inputs_embeds.shape[1] + max_new_tokens)
        if not attention_mask[:, -1].all():
            raise ValueError("a prompt ends in padding; pad prompts on the left")

    def _check_length(self, length: int) -> None:
        if length > self.positions:
            raise ValueError(f"the sequence has {length} positions; this language model takes {self.positions}")


class TransformersLM(LanguageModel):
    """A causal language model of transformers; the logits are its own."""

    def __init__(self, hf: PreTrainedModel) -> None:
        super().__init__()
        self.hf: Any = hf
        config = hf.config.get_text_config()
        if getattr(config, "max_position_embeddings", None) is None:
            raise ValueError(f"a {config.model_type} model does not say how many positions it takes; use another one")
        self.width, self.vocabulary, self.positions = (
            config.hidden_size,
            config.vocab_size,
            config.max_position_embeddings,
        )
        self._accepted = frozenset(signature(hf.forward).parameters)
        # Given padding alone, transformers reads it to see whether there is any, and a GPU has to wait.
        self._plain_causal = isinstance(config, WHOLLY_CAUSAL) and config._attn_implementation == "sdpa"

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., width) of token ids."""
        return self.hf.get_input_embeddings()(ids)

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (B, S, vocabulary)."""
        length = inputs_embeds.shape[1]
        self._check_length(length)
        places = {} if attention_mask is None else self._places(attention_mask, length)
        if attention_mask is not None and self._plain_causal:
            places["attention_mask"] = visible_keys(attention_mask, causal=True)
        return self.hf(inputs_embeds=inputs_embeds, use_cache=False, **places).logits

    def _next(self, inputs_embeds: Tensor, attention_mask: Tensor, memory: Any) -> tuple[Tensor, Any]:
        places = self._places(attention_mask, inputs_embeds.shape[1])
        if "logits_to_keep" in self._accepted:
            places["logits_to_keep"] = 1
        out = self.hf(inputs_embeds=inputs_embeds, past_key_values=memory, use_cache=True, **places)
        return out.logits[:, -1], out.past_key_values

    def _places(self, attention_mask: Tensor, length: int) -> dict[str, Any]:
        """Return the mask (B, S), and positions of the last `length` tokens that count no padding."""
        mask = attention_mask.long()
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -length:]
        return {"attention_mask": mask} | ({"position_ids": positions} if "position_ids" in self._accepted else {})

    @property
    def embedding_table(self) -> Tensor:
        """(rows, width)."""
        return self.hf.get_input_embeddings().weight

    @property
    def last_block(self) -> nn.Module:
        """The transformer block that is computed last."""
        stacks = [module for module in self.hf.modules() if isinstance(module, nn.ModuleList)]
        return max(reversed(stacks), key=len)[-1]

    @property
    def heads(self) -> list[nn.Module]:
        """Linear layers that 4-bit quantisation leaves alone."""
        return [self.hf.get_output_embeddings()]

    def checkpoint_gradients(self) -> None:
        """Compute activations of blocks a second time in the backward pass instead of keeping them."""
        self.hf.activation_checkpointing_enable()


class HrmActLM(LanguageModel):
    """HRM-ACTv1; its logits are log probabilities by stablemax, so that their softmax is what it was trained for."""

    FUSED: ClassVar[dict[str, str]] = {
        "q_proj": "qkv_proj",
        "k_proj": "qkv_proj",
        "v_proj": "qkv_proj",
        "gate_proj": "gate_up_proj",
        "up_proj": "gate_up_proj",
    }

    def __init__(self, hrm: HrmAct) -> None:
        super().__init__()
        self.hrm = hrm
        self.vocabulary, self.width = hrm.embedding.weight.shape
        self.positions = hrm.config.positions

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., width) of token ids."""
        return self.hrm.embed_tokens(ids)

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return logits (B, S, vocabulary)."""
        self._check_length(inputs_embeds.shape[1])
        return log_stablemax(self.hrm.forward_with_embeds(inputs_embeds, attention_mask).float())

    def _next(self, inputs_embeds: Tensor, attention_mask: Tensor, memory: Any) -> tuple[Tensor, Any]:
        memory = inputs_embeds if memory is None else torch.cat([memory, inputs_embeds], 1)
        return self(memory, attention_mask)[:, -1], memory

    @property
    def embedding_table(self) -> Tensor:
        """(rows, width)."""
        return self.hrm.embedding.weight

    @property
    def last_block(self) -> nn.Module:
        """The transformer block that is computed last."""
        return self.hrm.h_level.layers[-1]

    @property
    def heads(self) -> list[nn.Module]:
        """Linear layers that 4-bit quantisation leaves alone."""
        return [self.hrm.lm_head, self.hrm.q_head]

    def checkpoint_gradients(self) -> None:
        """Compute activations of blocks a second time in the backward pass instead of keeping them."""
        self.hrm.l_level.recompute = self.hrm.h_level.recompute = True


def build_language_model(
    config: LanguageModelConfig, vocabulary: int, adaptation: Adaptation | None = None
) -> LanguageModel:
    """Return the language model for token ids below `vocabulary`, adapted, or trainable in full when None.

    Weights are fp32, except for those that the adaptation quantises. Raises ValueError where pretrained weights cannot
    be loaded or have no embedding for every id.
    """
    # What is quantised at once need not be held in fp32 before.
    dtype = torch.bfloat16 if adaptation is not None and adaptation.four_bit else torch.float32
    lm: LanguageModel
    if isinstance(config, HrmActV1Config):
        lm = HrmActLM(HrmAct(config, vocabulary))
    else:
        lm = TransformersLM(_pretrained(config) if config.pretrained else _random(config, vocabulary, dtype))
    if lm.embedding_table.shape[0] < vocabulary:
        raise ValueError(
            f"the tokenizer has {vocabulary} tokens and the language model {lm.embedding_table.shape[0]}; "
            "name the tokenizer of this model"
        )
    if adaptation is not None:
        adapt(lm, adaptation)
    return lm.to(torch.float32)


def _pretrained(config: LlamaLanguageConfig | HrmTextLanguageConfig | AutoLanguageConfig) -> PreTrainedModel:
    assert config.pretrained is not None
    architecture: type[PreTrainedModel]
    if isinstance(config, LlamaLanguageConfig):
        architecture = LlamaForCausalLM
    elif isinstance(config, HrmTextLanguageConfig):
        architecture = HrmTextForCausalLM
    else:
        architecture = _causal_architecture(config.pretrained)
    return load_pretrained(architecture, config.pretrained, needed=("",))


def _causal_architecture(source: str) -> type[PreTrainedModel]:
    try:
        found = AutoConfig.from_pretrained(source)
    except OSError as error:
        raise ValueError(
            f"pretrained {source} cannot be loaded; name a folder written by save_pretrained, or a hub id that is "
            "cached or can be reached"
        ) from error
    if type(found) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"pretrained {source} is a {found.model_type} model; name a causal language model")
    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(found)]
    return architecture


def _random(
    config: LlamaLanguageConfig | HrmTextLanguageConfig | AutoLanguageConfig, vocabulary: int, dtype: torch.dtype
) -> PreTrainedModel:
    assert not isinstance(config, AutoLanguageConfig)
    assert config.sizes is not None
    return AutoModelForCausalLM.from_config(_transformers_config(config.sizes, vocabulary), dtype=dtype)


def _transformers_config(sizes: LlamaSizes | HrmTextSizes, vocabulary: int) -> PreTrainedConfig:
    shared: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "head_dim": sizes.hidden // sizes.heads,
        "intermediate_size": sizes.intermediate,
        "max_position_embeddings": sizes.positions,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if isinstance(sizes, LlamaSizes):
        return LlamaConfig(**shared, num_key_value_heads=sizes.kv_heads, rms_norm_eps=1e-5)
    return HrmTextConfig(**shared, H_cycles=sizes.h_cycles, L_cycles=sizes.l_cycles)


def adapt(lm: LanguageModel, adaptation: Adaptation) -> None:
    """Freeze a language model but for what the adaptation trains, in place; trained parameters are fp32."""
    lm.freeze()
    if adaptation.four_bit:
        _quantise(lm, lm.heads)
    if adaptation.lora is not None:
        _add_lora(lm, adaptation.lora, adaptation.four_bit)
    if adaptation.unfreeze_last_block:
        lm.last_block.requires_grad_(True)
    if adaptation.gradient_checkpointing:
        lm.checkpoint_gradients()
    for parameter in lm.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # peft makes adapters in the type of what they adapt
    lm.train(lm.training)


def _quantise(module: nn.Module, kept: list[nn.Module]) -> None:
    """Replace the linear layers inside, one after another, by 4-bit ones that compute in bf16."""
    for name, child in module.named_children():
        if type(child) is nn.Linear and child not in kept:
            setattr(module, name, _four_bit(child))
        else:
            _quantise(child, kept)


def _four_bit(linear: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    settings: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": True}
    layer = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=torch.bfloat16,
        device="meta",
        **settings,
    )
    weight: Any = Params4bit(linear.weight.data, requires_grad=False, **settings)
    layer.weight = weight.to(linear.weight.device)
    layer.bias = linear.bias
    # On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks the weights in the first pass without gradient, and in this
    # form no gradient ever reaches what lies before the layer.
    layer.support_avx512bf16_for_cpu = False
    return layer.eval()


def _add_lora(lm: LanguageModel, settings: LoraSettings, four_bit: bool) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    lora = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=sorted({lm.FUSED.get(name, name) for name in settings.target_modules}),
    )
    lm.is_loaded_in_4bit = four_bit  # type: ignore[assignment]  # what peft looks for
    inject_adapter_in_model(lora, lm)


def _train_unfrozen(module: nn.Module) -> None:
    """Put modules into training mode whose parameters are all trained, and the dropout of LoRA adapters."""
    trained = [parameter.requires_grad for parameter in module.parameters()]
    if trained and all(trained):
        module.train()
        return
    for name, child in module.named_children():
        if name == "lora_dropout":
            child.train()
        else:
            _train_unfrozen(child)
    # A layer of transformers recomputes in training mode only; its own dropout modules stay as they are.
    if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
        module.training = True


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    """Return a token for each row of (B, V)."""
    if temperature == 0:
        return logits.argmax(-1)
    if generator is None:
        raise ValueError("a temperature above 0 needs a generator")
    probability, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
    before = probability.cumsum(-1) - probability
    kept = (before < top_p).sum(-1, keepdim=True)
    mass = probability.cumsum(-1)
    draw = torch.rand(len(logits), 1, generator=generator, device=generator.device).to(mass)
    place = torch.searchsorted(mass, draw * mass.gather(-1, kept - 1), right=True)
    return order.gather(-1, place.minimum(kept - 1)).squeeze(-1)

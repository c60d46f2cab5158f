"""Causal language models of transformers."""

from __future__ import annotations

from abc import abstractmethod
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from configs.language import (
    HrmTextLanguageConfig,
    HrmTextSizes,
    LlamaLanguageConfig,
    LlamaSizes,
    Qwen2LanguageConfig,
    Qwen2Sizes,
)
from models.language.interface import LanguageModel
from models.language.masks import visible_keys
from models.pretrained import load_pretrained


class TransformersLM(LanguageModel):
    """A causal language model of transformers; the logits are its own."""

    WHOLLY_CAUSAL: ClassVar[bool] = False
    """Whether every layer that is no window sees all that comes before, so that one mask says everything."""

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
        windows = "sliding_attention" in (getattr(config, "layer_types", None) or ())
        self._plain_causal = self.WHOLLY_CAUSAL and not windows and config._attn_implementation == "sdpa"

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings (..., width) of token ids."""
        return self.hf.get_input_embeddings()(ids)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, S, vocabulary)."""
        length = inputs_embeds.shape[1]
        self._check_length(length, places)
        if places is None:
            told = {} if attention_mask is None else self._places(attention_mask, length)
        elif self._plain_causal:
            told = {"position_ids": places.expand(len(inputs_embeds), -1)}
        else:
            self._refuse_places(places)
        if attention_mask is not None and self._plain_causal:
            told["attention_mask"] = visible_keys(attention_mask, causal=True)
        return self.hf(inputs_embeds=inputs_embeds, use_cache=False, **told).logits

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


class SizedLM(TransformersLM):
    """A decoder of one architecture: pretrained, or random with sizes of its own."""

    ARCHITECTURE: ClassVar[type[PreTrainedModel]]

    def __init__(
        self,
        config: LlamaLanguageConfig | Qwen2LanguageConfig | HrmTextLanguageConfig,
        vocabulary: int,
        dtype: torch.dtype,
    ) -> None:
        if config.pretrained:
            super().__init__(load_pretrained(self.ARCHITECTURE, config.pretrained, needed=("",)))
        else:
            settings = self.settings(config.sizes, vocabulary)
            super().__init__(AutoModelForCausalLM.from_config(settings, dtype=dtype))

    @staticmethod
    @abstractmethod
    def settings(sizes: Any, vocabulary: int) -> PreTrainedConfig:
        """Return what transformers builds a model of some sizes from."""


def shared_settings(sizes: LlamaSizes | Qwen2Sizes | HrmTextSizes, vocabulary: int) -> dict[str, Any]:
    """Return the settings by which transformers knows what all decoders have."""
    return {
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

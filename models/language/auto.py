"""Any causal language model that transformers knows."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from configs.language import AutoLanguageConfig
from models.language.transformers_lm import TransformersLM
from models.pretrained import load_pretrained


class AutoLM(TransformersLM):
    """The causal language model of a hub id or a folder, of whatever architecture."""

    def __init__(self, config: AutoLanguageConfig, vocabulary: int, dtype: torch.dtype) -> None:
        super().__init__(load_pretrained(_causal_architecture(config.pretrained), config.pretrained, needed=("",)))


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

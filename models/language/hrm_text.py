"""HRM-Text, pretrained or from scratch."""

from __future__ import annotations

import torch
from transformers import HrmTextConfig, HrmTextForCausalLM

from configs.language import HrmTextLanguageConfig, HrmTextSizes
from models.language.transformers_lm import TransformersLM, from_scratch, shared_settings
from models.pretrained import load_pretrained


class HrmText(TransformersLM):
    """The hierarchical reasoning model for text (arXiv 2605.20613)."""

    def __init__(self, config: HrmTextLanguageConfig, vocabulary: int, dtype: torch.dtype) -> None:
        if config.pretrained:
            super().__init__(load_pretrained(HrmTextForCausalLM, config.pretrained, needed=("",)))
        else:
            assert config.sizes is not None
            super().__init__(from_scratch(_settings(config.sizes, vocabulary), dtype))


def _settings(sizes: HrmTextSizes, vocabulary: int) -> HrmTextConfig:
    return HrmTextConfig(**shared_settings(sizes, vocabulary), H_cycles=sizes.h_cycles, L_cycles=sizes.l_cycles)

"""HRM-Text."""

from __future__ import annotations

from transformers import HrmTextConfig, HrmTextForCausalLM

from configs.language import HrmTextSizes
from models.language.transformers_lm import SizedLM, shared_settings


class HrmText(SizedLM):
    """The hierarchical reasoning model for text (arXiv 2605.20613)."""

    ARCHITECTURE = HrmTextForCausalLM
    WHOLLY_CAUSAL = True

    @staticmethod
    def settings(sizes: HrmTextSizes, vocabulary: int) -> HrmTextConfig:
        """Return what transformers builds an HRM-Text from."""
        return HrmTextConfig(**shared_settings(sizes, vocabulary), H_cycles=sizes.h_cycles, L_cycles=sizes.l_cycles)

"""What of a language model is trained: low-rank adapters, the last block, and what lies frozen in four bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from configs.language import (
    Adaptation,
    LanguageConfig,
    LoraSettings,
)
from models.language.build import build_language_model
from models.language.interface import LanguageModel
from models.ternary import replace_layers


def build_adapted(config: LanguageConfig, vocabulary: int, adaptation: Adaptation) -> LanguageModel:
    """Return a language model of which the adaptation is trained; fp32, except for what is quantised.

    Raises ValueError as `build_language_model` does.
    """
    # What is quantised at once need not be held in fp32 before.
    lm = build_language_model(config, vocabulary, torch.bfloat16 if adaptation.four_bit else torch.float32)
    adapt(lm, adaptation)
    return lm.to(torch.float32)


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


def merge_adapters(lm: LanguageModel) -> None:
    """Add what low-rank adapters learned to the layers that they adapt, in place, and take the adapters away.

    Raises ValueError where the layers lie in four bits, which could not hold the sums.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if any(type(module).__name__ == "Linear4bit" for module in lm.modules()):
        raise ValueError("the language model lies in four bits (NF4) already; train it with adaptation.four_bit false")
    adapted: dict[nn.Module, nn.Module] = {}
    for module in lm.modules():
        if isinstance(module, BaseTunerLayer):
            module.merge()
            adapted[module] = module.get_base_layer()
    replace_layers(lm, adapted)


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

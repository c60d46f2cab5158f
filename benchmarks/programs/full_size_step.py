"""Builds a model in the size that it is published in, from random weights, and trains it for one step on the CPU.

Arguments: model ("swin_mae", "tinyllama" or "trm_vlm"), quick. Answers with parameters, seconds and the loss.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from configs.alignment import ImageEncoderConfig, PerceiverConfig
from configs.language import Adaptation, LlamaLanguageConfig, LlamaSizes, LoraSettings
from configs.prefixer import PrefixerConfig
from configs.recursive import TrmConfig
from configs.sat_swin_mae import SwinMaeConfig
from configs.vision_language import ClipVisionConfig, VitSizes
from models.language.adaptation import build_adapted
from models.language.trm_lm import TrmLM
from models.vision_language.answerer import AnswerBatch, Answerer
from models.vision_language.image_encoder import ImageEncoder
from models.weather.narrator import NarrationBatch, Narrator
from models.weather.prefixer import Prefixer
from models.weather.sat_swin_mae import (
    SatSwinMAE,
    draw_masks,
    pixel_mask,
    squared_errors,
    sum_by_channel,
    value_weights,
)

WINDOW, CHANNELS, BATCH = (8, 64, 64), 17, 2
TEXT, VOCABULARY = 96, 32_000
SMALL = LlamaSizes(hidden=64, layers=2, heads=4, kv_heads=2, intermediate=128, positions=256)


def windows() -> dict[str, torch.Tensor]:
    """Return normalised windows with their place and time."""
    _, rows, columns = WINDOW
    return {
        "data": torch.randn(BATCH, CHANNELS, *WINDOW),
        "time": torch.full((BATCH,), 1_710_000_000),
        "latitude": torch.linspace(60, 44, rows).expand(BATCH, rows),
        "longitude": torch.linspace(0, 16, columns).expand(BATCH, columns),
    }


def masked_pretraining(quick: bool) -> tuple[torch.nn.Module, Any]:
    """Return SatSwinMAE, and a function that gives its loss on a batch."""
    model = SatSwinMAE(SwinMaeConfig(width=24) if quick else SwinMaeConfig(), CHANNELS, WINDOW)

    def loss() -> torch.Tensor:
        batch = windows()
        mask = draw_masks(BATCH, model.units, 0.75, torch.Generator().manual_seed(0))
        prediction = model(mask=mask, **batch)
        hidden = pixel_mask(mask, model.units, model.config.cell, WINDOW)
        weights = value_weights(hidden, torch.ones_like(prediction).bool())
        return (squared_errors(prediction, batch["data"], weights) / sum_by_channel(weights)).mean()

    return model, loss


def captioning(quick: bool) -> tuple[torch.nn.Module, Any]:
    """Return a narrator on TinyLlama in 4 bits with LoRA, and a function that gives its loss on a batch."""
    config = LlamaLanguageConfig(pretrained=None, sizes=SMALL if quick else LlamaSizes())
    adaptation = Adaptation(four_bit=True, lora=LoraSettings(), gradient_checkpointing=True)
    language = build_adapted(config, VOCABULARY, adaptation)
    encoder = SatSwinMAE(SwinMaeConfig(), CHANNELS, WINDOW)
    adapter = Prefixer(
        PrefixerConfig(), encoder.token_width, encoder.token_grid, language.width, language.embedding_scale()
    )
    model = Narrator(encoder, adapter, language)

    def loss() -> torch.Tensor:
        tokens = torch.randint(VOCABULARY, (BATCH, TEXT))
        seen = torch.ones_like(tokens).bool()
        learned = torch.arange(TEXT).expand_as(tokens) >= 8
        batch = NarrationBatch(**windows(), tokens=tokens, attended=seen, learned=learned, sample=torch.arange(BATCH))
        return model(batch).sum() / learned.sum()

    return model, loss


def answering(quick: bool) -> tuple[torch.nn.Module, Any]:
    """Return CLIP ViT-L/14-336, frozen, with its resampler, and TRM of 1024 channels; and what gives a batch's loss."""
    small = ImageEncoderConfig(
        tower=ClipVisionConfig(pretrained=None, sizes=VitSizes(side=32, patch=8, hidden=16, layers=1, heads=2)),
        resampler=PerceiverConfig(tokens=4, width=16, layers=1, heads=2),
        width=32,
    )
    whole = ImageEncoderConfig(tower=ClipVisionConfig(pretrained=None))
    encoder = ImageEncoder(small if quick else whole).requires_grad_(False)
    decoder = TrmLM(TrmConfig(hidden=64 if quick else 1024, rounds=2), VOCABULARY // 4)
    answerer = Answerer(decoder, encoder.tokens, encoder.resampler.width, encoder.width, vision=True)
    answerer.project_as(encoder.projection.state_dict())
    model = torch.nn.ModuleDict({"encoder": encoder, "answerer": answerer})

    def loss() -> torch.Tensor:
        images = torch.randint(0, 256, (BATCH, 3, encoder.square.side, encoder.square.side), dtype=torch.uint8)
        with torch.no_grad():
            seen = encoder.latents(images)
        tokens = torch.randint(VOCABULARY // 4, (BATCH, TEXT))
        learned = torch.arange(TEXT).expand_as(tokens) >= TEXT // 2
        batch = AnswerBatch(seen, tokens, torch.ones_like(learned), learned)
        sequences = answerer.embed(batch)
        _, step = decoder.trm.supervised_step(decoder.trm.initial_carry(sequences.embeds), *sequences)
        logits = answerer.foretold(step.logits, batch).float()
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
        return (nats.view(tokens.shape) * learned).sum() / learned.sum()

    return model, loss


def main(task: dict[str, Any]) -> None:
    """Build, do one step, and answer."""
    torch.manual_seed(0)
    began = time.perf_counter()
    model, loss_of = MODELS[task["model"]](task["quick"])
    built = time.perf_counter()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of()
    loss.backward()
    reached = sum(p.numel() for p in trained if p.grad is not None)
    optimiser.step()
    answer = {
        "parameters": parameters_of(model),
        "trained": sum(p.numel() for p in trained),
        "reached": reached,
        "loss": loss.item(),
        "build_seconds": built - began,
        "step_seconds": time.perf_counter() - built,
    }
    print(json.dumps(answer), flush=True)


def parameters_of(model: torch.nn.Module) -> int:
    """Return the number of weights; of packed 4-bit layers, that of the weights which they stand for."""
    found = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        found += state.shape.numel() if state is not None else parameter.numel()
    return found


MODELS = {"swin_mae": masked_pretraining, "tinyllama": captioning, "trm_vlm": answering}

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

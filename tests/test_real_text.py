"""The prose that installed packages ship, and the perplexity of a model on it."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

from benchmarks import real_text
from benchmarks.real_text import held_out_text, is_prose, training_texts
from benchmarks.suite import smollm2
from benchmarks.suite.smollm2 import FORMS, Budget, distil, nats_per_token, sampled, weights_words
from configs.language import LlamaLanguageConfig, LlamaSizes
from configs.pretrained import HubCheckpoint
from models.language.build import build_language_model
from models.ternary import TernaryLinear
from tasks.quantise.distillation import logits_distillation

SENTENCES = (
    "The file is searched on the path. Note that each breakpoint is assigned a number to which all commands refer"
)


@pytest.mark.parametrize(
    ("paragraph", "prose"),
    [
        (f"{SENTENCES}.", True),
        (SENTENCES, False),
        (f"{SENTENCES}, unless call(x) says otherwise.", False),
        (f">>> {SENTENCES}.", False),
        (f"{SENTENCES} {'1234567890 ' * 4}.", False),
        ("Too few words are here.", False),
    ],
)
def test_prose_is_sentences(paragraph, prose):
    assert is_prose(paragraph) == prose


def test_the_reference_is_the_same_every_time_and_long_enough():
    text = held_out_text()
    assert text == held_out_text()
    assert text.characters > 80_000
    assert len(set(text.paragraphs)) == len(text.paragraphs)
    assert text.provenance()["characters"] == sum(map(len, text.paragraphs))


def test_training_text_is_of_other_sources_and_says_which(tmp_path, monkeypatch):
    known = held_out_text().paragraphs[0]
    files = {
        "mine/__init__.py": f'"""{SENTENCES}.\n\n    x = 1\n\n{known}\n"""',
        "mine/inner/module.py": f'def f():\n    """{SENTENCES}.\n\n    It ends here; {SENTENCES}.\n    """',
        "mine/newer.py": "def f[",
        "mine/tests/test_it.py": f'"""In tests: {SENTENCES}."""',
        "mine-1.2.dist-info/METADATA": "Metadata-Version: 2.4\nName: mine\nVersion: 1.2\nLicense-Expression: MIT\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(real_text, "PACKAGES", ("mine", "is_not_installed"))
    (text,) = training_texts()
    assert (text.source, text.licence) == ("mine 1.2", "MIT")
    assert text.paragraphs == (f"{SENTENCES}.", f"It ends here; {SENTENCES}.")


@pytest.fixture
def lm():
    sizes = LlamaSizes(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=64, positions=48, tied=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_language_model(LlamaLanguageConfig(pretrained=None, sizes=sizes), 50).eval().requires_grad_(False)


def test_perplexity_is_that_of_the_library(lm):
    windows = torch.randint(50, (6, 16), generator=torch.Generator().manual_seed(1))
    assert nats_per_token(lm, windows) == pytest.approx(lm.hf(windows, labels=windows).loss.item(), rel=1e-5)
    assert math.exp(nats_per_token(lm, windows)) == pytest.approx(50, rel=0.2)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Path("package"), "SmolLM2-135M-Instruct as GGUF Q4_1"),
        (HubCheckpoint(hub="some/one"), "HuggingFaceTB/SmolLM2-135M-Instruct of the hub"),
    ],
)
def test_a_figure_says_whether_its_weights_had_few_bits_before(monkeypatch, source, words):
    monkeypatch.setattr(smollm2, "find_source", lambda *asked, **more: source)
    assert weights_words() == words


def test_ternary_layers_have_three_values_and_the_table_keeps_its_own(lm):
    before = {name: parameter.clone() for name, parameter in lm.named_parameters()}
    FORMS["ternary"][1](lm)
    layers = {name: layer for name, layer in lm.named_modules() if isinstance(layer, TernaryLinear)}
    assert len(layers) == 14
    for name, layer in layers.items():
        assert "layers" in name
        layer.activations = "none"
        columns = layer(torch.eye(layer.in_features)).detach()
        assert columns.unique().tolist() == pytest.approx([-layer.scale().item(), 0, layer.scale().item()])
    assert all(torch.equal(parameter, before[name]) for name, parameter in lm.named_parameters())


@pytest.mark.long
def test_a_model_that_learns_from_its_own_texts_comes_back_to_its_distributions(lm):
    for name, parameter in lm.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)  # far from uniform
    budget = Budget(texts=64, length=12, steps=200, batch=8, learning_rate=1e-2)
    texts = sampled(lm, 50, budget)
    assert texts.shape == (64, 12)
    rounded, trained, said = copy.deepcopy(lm), copy.deepcopy(lm), []
    FORMS["ternary"][1](rounded)
    distil(trained, lm, texts[:48], budget, said.append)

    def apart(model) -> float:
        with torch.no_grad():
            logits = [m(m.embed_tokens(texts[48:])) for m in (model, lm)]
        return logits_distillation(*logits, torch.ones(16, 12)).item()

    assert apart(trained) < 0.7 * apart(rounded)
    assert len(said) == 20
    assert torch.equal(trained.embedding_table, lm.embedding_table)

"""Pretrained language models that are made smaller by what training texts use."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.language import AutoLanguageConfig
from configs.microvlm import MicroVlmConfig, PrunedLanguage
from flows.microvlm import PIPELINE
from flows.runner import run
from models.language.auto import AutoLM
from models.language.transformers_lm import TransformersLM
from storage.assets import AssetStore
from storage.image_texts import read_texts
from tasks.progress import Silent
from tasks.text.tokens import Tokens, train_tokenizer
from tasks.vision_language.language_released import CaptionLanguageRelease
from tasks.vision_language.released import VlmRelease
from tests.once import only
from tests.vision_language.tiny import CONFIG, FEW_BITS, stage

WORDS = "the a of red blue green circle square triangle left right above below and with three two one four big small"


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A decoder, and its tokenizer in a folder below, as `save_pretrained` leaves them."""
    folder = tmp_path / "pretrained"
    train_tokenizer(
        [WORDS, "unrelated words of quite another corpus: tariffs, ministers, goals"] * 3, 420, folder / "tokenizer"
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen2Config(
        vocab_size=len(Tokens.load(folder / "tokenizer")), intermediate_size=24, max_position_embeddings=160, **sizes
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def pruned(vlm: AssetStore, root: Path, pretrained: Path, prune: dict[str, object]) -> AssetStore:
    """Run the pipeline with a language model that is pruned first, on the data of another root."""
    shutil.copytree(vlm.root, root)
    config = copy.deepcopy(CONFIG)
    vlm_section = config["vlm"]
    vlm_section["design"]["model"]["language"] = {"kind": "qwen2", "pretrained": str(pretrained)}
    vlm_section["design"]["tokenizer"] = str(pretrained / "tokenizer")
    vlm_section["design"]["model"]["recall"]["injection"] = "prefix"
    packed = {"few_bits": {"stage": "stage1", "recipe": FEW_BITS}}
    vlm_section |= {
        "text": None,
        "prune": prune,
        "stages": {"stage1": stage(vision=True, rates=("vision",))},
        "packed": packed,
    }
    run(PIPELINE, MicroVlmConfig.model_validate(config), root, Silent(), workers="inline")
    return AssetStore(root)


@pytest.mark.long
def test_a_pruned_vocabulary_writes_the_texts_with_the_tokens_and_logits_of_before(vlm, tmp_path, pretrained):
    store = pruned(vlm, tmp_path / "root", pretrained, {"vocabulary": 330})
    small = CaptionLanguageRelease.from_release(only(store, "microvlm_language_pruned").folder)
    tokens = Tokens.load(pretrained / "tokenizer")
    assert len(small.tokens) == 330 < len(tokens)
    whole = AutoLM(AutoLanguageConfig(pretrained=str(pretrained)), len(tokens), torch.float32).eval()
    shards, index = (only(store, kind).folder for kind in ("image_text_shards", "image_text_index"))
    names = small.tokens.tokenizer.convert_ids_to_tokens(range(len(small.tokens)))
    kept = tokens.tokenizer.convert_tokens_to_ids(names)
    for _, text in read_texts(shards, index, "train")[:5]:
        new = small.tokens.ids(f" {text}")
        assert small.tokens.text(new) == text
        old = [kept[token] for token in new]
        with torch.no_grad():
            expected = whole(whole.embed_tokens(torch.tensor([old])))[..., kept]
            found = small.network(small.network.embed_tokens(torch.tensor([new])))
        torch.testing.assert_close(found, expected)


def test_a_model_is_trained_on_the_layers_that_are_left(vlm, tmp_path, pretrained):
    store = pruned(vlm, tmp_path / "root", pretrained, {"layers": [0, 2]})
    (name,) = {a.name for a in store.assets("microvlm_model")} - {a.name for a in vlm.assets("microvlm_model")}
    model = store.find(name)
    language = VlmRelease.from_release(model.folder).network.language
    assert isinstance(language, TransformersLM)
    assert len(language.hf.model.layers) == 2
    before = load_file(pretrained / "model.safetensors")
    for left, was in ((0, 0), (1, 2)):
        weight = language.hf.model.layers[left].mlp.up_proj.weight
        torch.testing.assert_close(weight, before[f"model.layers.{was}.mlp.up_proj.weight"])


def test_what_cannot_be_pruned_is_refused():
    with pytest.raises(ValueError, match="nothing would be pruned"):
        PrunedLanguage()
    with pytest.raises(ValueError, match=r"lower text\.vocabulary"):
        MicroVlmConfig.model_validate(CONFIG | {"vlm": CONFIG["vlm"] | {"prune": {"vocabulary": 400}}})

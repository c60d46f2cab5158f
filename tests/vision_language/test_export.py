"""`millrace export` through the command line: what is written is compared with the model that it is of."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from gguf import GGUFReader

from configs.microvlm import MicroVlmConfig
from flows.commands.see import vlm_asset
from flows.microvlm import PIPELINE
from flows.runner import run
from models.language.transformers_lm import TransformersLM
from storage.assets import AssetStore
from tasks.progress import Silent
from tasks.quantise.edge_process import edge_python
from tasks.quantise.unpacking import decoder_of
from tasks.vision_language.edge import write_edge
from tasks.vision_language.edge_check import compare_parts
from tasks.vision_language.released import VlmRelease
from tasks.vision_language.samples import first_of_validation
from tests.command import millrace
from tests.once import build_once, linked, only
from tests.vision_language.test_pipeline import of_stage
from tests.vision_language.tiny import CONFIG, FEW_BITS, stage


def build(vlm: AssetStore, root: Path) -> None:
    linked(vlm.root, root, "microvlm_model", "microvlm_packed", "vlm_report")
    config = copy.deepcopy(CONFIG)
    config["vlm"]["design"]["model"]["recall"]["injection"] = "prefix"
    config["vlm"]["stages"] = {"stage1": stage(vision=True, rates=("vision",))}
    config["vlm"]["packed"] = {"few_bits": {"stage": "stage1", "recipe": FEW_BITS}}
    run(PIPELINE, MicroVlmConfig.model_validate(config), root, Silent(), workers="inline")


@pytest.fixture(scope="module")
def told_as_tokens(vlm, tmp_path_factory) -> AssetStore:
    """A packed model whose memory is told as tokens."""
    return AssetStore(build_once(tmp_path_factory, "told_as_tokens", lambda root: build(vlm, root)))


def has_llama() -> bool:
    try:
        edge_python()
    except ValueError:
        return False
    return True


@pytest.mark.long
def test_an_exported_model_is_compared_with_the_one_in_torch(told_as_tokens, tmp_path):
    board = tmp_path / "board"
    done = millrace("export", "--model", "microvlm_packed", "--to", str(board), root=told_as_tokens.root)
    assert done.returncode == 0, done.stderr
    found = json.loads((board / "check.json").read_text())
    assert all(0 < found[name] < 0.1 for name in ("prefix", "content", "cue", "reminder")), (
        "integers are near, and not the same"
    )
    if has_llama():
        assert found["agreement"] > 0.9
        assert found["divergence"] < 0.01
        assert found["nats"] == pytest.approx(found["nats_before"], abs=0.05)
    else:
        assert "the decoder was not compared: the edge engine needs llama.cpp" in done.stdout


@pytest.mark.long
def test_where_the_images_are_gone_that_is_told_and_the_folder_is_of_that_model_alone(told_as_tokens, tmp_path):
    model, root, board = only(told_as_tokens, "microvlm_packed").folder, tmp_path / "root", tmp_path / "board"
    (root / "microvlm_packed").mkdir(parents=True)
    (root / "microvlm_packed" / model.name).symlink_to(model)
    done = millrace("export", "--to", str(board), "--model", "microvlm_packed", root=root)
    assert done.returncode == 0, done.stderr
    assert "not compared with the model in torch" in done.stdout
    assert not (board / "check.json").exists()
    release = VlmRelease.from_release(model)
    shards, index = (only(told_as_tokens, kind).folder for kind in ("image_text_shards", "image_text_index"))
    batch = first_of_validation(release, shards, index)
    near = compare_parts(board, release, batch)
    with torch.no_grad():
        release.network.adapter.positions.add_(torch.randn_like(release.network.adapter.positions))
    far = compare_parts(board, release, batch)
    assert near["prefix"] < 0.1 < far["prefix"]


def test_a_memory_that_is_told_by_keys_and_values_is_refused(vlm, tmp_path):
    release = VlmRelease.from_release(of_stage(vlm, "few_bits").folder)
    with pytest.raises(ValueError, match=r"llama\.cpp takes tokens only; train with recall\.injection prefix"):
        write_edge(tmp_path, release, "tiny")


@pytest.mark.long
def test_an_exact_model_keeps_8_bits_of_embeddings_and_no_more_positions_than_it_has(told_as_tokens, tmp_path):
    release = VlmRelease.from_release(only(told_as_tokens, "microvlm_model").folder)
    write_edge(tmp_path, release, "tiny")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert kinds["token_embd.weight"] == kinds["output.weight"] == "Q8_0"
    positions = CONFIG["vlm"]["design"]["model"]["language"]["sizes"]["positions"]
    assert json.loads((tmp_path / "config.json").read_text())["context"] == positions == 160


def test_a_model_that_trains_quantised_is_exported_once_it_is_packed(vlm, tmp_path):
    training = VlmRelease.from_release(of_stage(vlm, "ternary").folder)
    with pytest.raises(ValueError, match="not packed yet; name its packed model"):
        decoder_of(cast(TransformersLM, training.network.language).hf)


def test_the_best_model_is_looked_for_among_those_of_the_newest_ones_language_model():
    def model(language: str, nll: float, pretrained: str | None = None) -> SimpleNamespace:
        inputs = [SimpleNamespace(kind=kind, key=key) for kind, key in
                  (("image_text_index", "index"), ("microvlm_language", language))]  # fmt: skip
        design = {"tokenizer": None, "model": {"language": {"kind": "llama", "pretrained": pretrained}}}
        return SimpleNamespace(manifest=SimpleNamespace(
            kind="microvlm_model", inputs=inputs, metrics={"nll": nll}, config={"design": design}))  # fmt: skip

    newest, better, other, foreign = (
        model("words", 2.0),
        model("words", 1.5),
        model("letters", 0.4),
        model("words", 1, "x/y"),
    )
    store = cast(AssetStore, SimpleNamespace(assets=lambda kind: [newest, other, better, foreign], name="here"))
    assert vlm_asset(store, None) is better, "a letter is likelier than a word, whatever a model is worth"

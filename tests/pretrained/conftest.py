"""A tiny checkpoint as published ones are, and a hub that has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.text.tokens import train_tokenizer
from tests.pretrained.hub_server import HubServer

HUB = "someone/tiny-llama"
CHUNK = 1024
"""Bytes that are written at a time."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `save_pretrained` wrote: a Llama whose output layer is its embedding table, and a tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    train_tokenizer(["what the weather does, and where"] * 3, 300, folder)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=300, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
        LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "README.md").write_text("not needed")
    return folder


@pytest.fixture
def hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that has the checkpoint, in place of the real one."""
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    with HubServer(HUB, files).running() as server:
        places = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        }
        for name, value in {**places, "DOWNLOAD_CHUNK_SIZE": CHUNK}.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield server

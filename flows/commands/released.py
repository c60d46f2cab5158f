"""What `show` prints of a model: its dimensions, its parameters by part, and what they take at so many bits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from flows.commands.tables import print_table, table
from storage.assets import Asset, describe_size
from storage.weights import StoredTensor, read_tensors
from tasks.quantise.sizes import BITS, by_part, bytes_at
from tasks.training.release import COMPUTED_BY, ONNX, PACKED

CONFIG, WEIGHTS = "config.json", ".safetensors"
DIMENSIONS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "vocab_size", "projection_dim", "image_size", "patch_size", "tie_word_embeddings",
)  # fmt: skip
"""What transformers calls the sizes of a model."""


def is_model(asset: Asset) -> bool:
    """Whether an asset holds a model: a description and weights."""
    names = {file.path for file in asset.manifest.files}
    return CONFIG in names and any(name.endswith(WEIGHTS) for name in names)


def print_model(console: Console, asset: Asset) -> None:
    """Print dimensions and sizes of a model; what is arithmetic and what is measured stands apart."""
    files = {file.path: file.size for file in asset.manifest.files}
    weights = sorted(name for name in files if name.endswith(WEIGHTS))
    asset.fetch({CONFIG, *weights}.__contains__)
    config = json.loads((asset.folder / CONFIG).read_bytes())
    facts = table("dimension", "")
    for name, value in dimensions(config):
        facts.add_row(name, escape(str(value)))
    print_table(console, facts)
    tensors = {name: tensor for file in weights for name, tensor in read_tensors(asset.folder / file).items()}
    if PACKED in config or COMPUTED_BY in config:
        told = "several weights in a byte" if PACKED in config else f"weights of 8 bits in {ONNX}"
        console.print(f"[bold]packed[/]: {told}; the stage's counts tell how many bytes", highlight=False)
        kept = {name: size for name, size in files.items() if name in (*weights, ONNX)}
        _print_files(console, kept, {}, sum(files.values()))
        return
    console.print("[bold]arithmetic[/]: parameters, and their bytes at so many bits each", highlight=False)
    _print_sizes(console, tensors)
    console.print("[bold]measured[/]: bytes of the files as they lie there", highlight=False)
    _print_files(console, {name: files[name] for name in weights}, tensors, sum(files.values()))


def dimensions(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what `config.json` says of a model's size, in the words of transformers or of its recipe."""
    if "model_type" in config:
        yield "model_type", config["model_type"]
        yield from ((name, config[name]) for name in DIMENSIONS if config.get(name) is not None)
        for name, inner in config.items():
            if name.endswith("_config") and isinstance(inner, Mapping):
                yield from ((f"{name}.{key}", inner[key]) for key in DIMENSIONS if inner.get(key) is not None)
        return
    made = config.get("model", {})
    recipe = made.get("recipe") or made.get("design") or {}
    yield from _flat(recipe.get("model", {name: value for name, value in recipe.items() if name != "training"}))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _print_sizes(console: Console, tensors: Mapping[str, StoredTensor]) -> None:
    parts = by_part({name: tensor.elements for name, tensor in tensors.items()})
    sizes = table("part", "parameters", *(f"{bits:g} bit" for bits in BITS))
    for part, count in [*parts.items(), ("all", sum(parts.values()))]:
        sizes.add_row(part, f"{count:,}", *(describe_size(bytes_at(count, bits)) for bits in BITS))
    print_table(console, sizes)


def _print_files(console: Console, weights: Mapping[str, int], tensors: Mapping[str, StoredTensor], whole: int) -> None:
    of_type = Counter[str]()
    for tensor in tensors.values():
        of_type[tensor.dtype] += tensor.elements
    elements = of_type.total()
    measured = table("file", "bytes", "")
    for name, size in weights.items():
        measured.add_row(name, f"{size:,}", "")
    types = ", ".join(f"{count:,} {dtype}" for dtype, count in of_type.most_common())
    bits = f"{8 * sum(weights.values()) / elements:.2f} bit per value: {types}" if elements else ""
    measured.add_row("weights", f"{sum(weights.values()):,}", bits)
    measured.add_row("all files", f"{whole:,}", "")
    print_table(console, measured)

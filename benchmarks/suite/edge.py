"""The edge engine at full dimensions: a vision-language model without torch, on two cores.

MicroVLM-V: DeiT-Tiny, the adapter and what surrounds the memory in 8 bits (ONNX Runtime), a decoder of Qwen2.5-0.5B's
dimensions with ternary linear layers (llama.cpp, TQ1_0, padded from 896 to 1024 units), and an empty episodic memory of
512 slots in int8. All weights are random, because sizes and speed do not depend on them. The named recipe `32k-ternary`
has a vocabulary of 32,768 tokens and ternary embeddings with a scale for each token; others stand beside it.

A description of 64 tokens is made in a fresh process each time: it looks at the image, stores it in the memory, asks
the memory, and writes. Its peak is what Linux says of the process (VmHWM). For speed, a prompt of 64
tokens is read and 64 are decoded, in turns with Q4_0 of the same decoder (embeddings in Q8_0, which is what
llama.cpp's own quantiser gives them at 896 units), with llama.cpp's defaults: repacked weights.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.bench import Bench, interleave, median_ratio, rounded
from benchmarks.figure import Figure
from benchmarks.process import Program
from tasks.quantise.edge_process import edge_python

RECIPE = "32k-ternary"
RECIPES: dict[str, dict[str, Any]] = {
    "32k-int4": {"vocabulary": 32_768, "embeddings": "int4", "ternary": "TQ1_0"},
    "32k-int4-2bit": {"vocabulary": 32_768, "embeddings": "int4", "ternary": "TQ2_0"},
    "32k-int8": {"vocabulary": 32_768, "embeddings": "int8", "ternary": "TQ1_0"},
    RECIPE: {"vocabulary": 32_768, "embeddings": "ternary", "ternary": "TQ1_0"},
    "full-int4": {"vocabulary": 151_936, "embeddings": "int4", "ternary": "TQ1_0"},
    "full-ternary": {"vocabulary": 151_936, "embeddings": "ternary", "ternary": "TQ1_0"},
}
PEERS: dict[str, dict[str, Any]] = {
    "32k": {"vocabulary": 32_768, "linears": "Q4_0", "embeddings": "Q8_0"},
    "full": {"vocabulary": 151_936, "linears": "Q4_0", "embeddings": "Q8_0"},
}
BUNDLE = ("model.gguf", "vision.onnx", "memory.safetensors", "question.onnx", "answer.onnx")
TOKENS = 64
ROUNDS = 5


def run(bench: Bench) -> list[Figure]:
    """Write every recipe, caption, and race with Q4_0."""
    python = edge_python()
    written = {name: _write(bench, name, recipe, whole=name == RECIPE) for name, recipe in RECIPES.items()}
    peers = {name: _write(bench, f"q4-{name}", recipe, whole=False) for name, recipe in PEERS.items()}
    rounds = 1 if bench.quick else ROUNDS
    bench.say(f"{rounds} captions, and {rounds} rounds against Q4_0")
    captions = [_caption(bench, python) for _ in range(rounds)]
    races = interleave(
        rounds,
        {
            "ternary": lambda: _decode(bench, python, RECIPE, repack=False),
            "q4": lambda: _decode(bench, python, "q4-32k", repack=True),
        },
    )
    detail = {
        "bytes": {name: written[name] for name in RECIPES},
        "q4_bytes": {name: files["model.gguf"] for name, files in peers.items()},
        "captions": captions,
        "races": races,
    }
    return [
        _bundle(bench, detail, written[RECIPE]),
        _peak(bench, detail, captions),
        _speed(bench, detail, races["ternary"]),
        *_speed_ratios(bench, detail, races),
        _size_ratio(bench, detail, written[RECIPE], peers),
    ]


def _write(bench: Bench, name: str, recipe: dict[str, Any], *, whole: bool) -> dict[str, int]:
    """Write a model; return the bytes of its files."""
    bench.say(f"writing {name}")
    vocabulary = min(recipe["vocabulary"], 512) if bench.quick else recipe["vocabulary"]
    task = {**recipe, "vocabulary": vocabulary, "folder": str(bench.work / name), "whole": whole, "quick": bench.quick}
    with Program("edge_model", task) as program:
        files: dict[str, int] = program.answer()["files"]
    return files


def _caption(bench: Bench, python: Path) -> dict[str, Any]:
    image = bench.work / "image.jpg"
    if not image.exists():
        pixels = np.random.default_rng(0).integers(0, 255, (15, 20, 3), np.uint8)
        Image.fromarray(pixels).resize((640, 480)).save(image)
    task = {"folder": str(bench.work / RECIPE), "image": str(image), "tokens": TOKENS}
    with Program("edge_caption", task, python) as program:
        answer: dict[str, Any] = program.answer()
    if answer["foreign"]:
        raise RuntimeError(f"the engine imported {', '.join(answer['foreign'])}")
    return answer


def _decode(bench: Bench, python: Path, name: str, *, repack: bool) -> dict[str, float]:
    task = {"path": str(bench.work / name / "model.gguf"), "repack": repack, "prompt": TOKENS, "tokens": TOKENS}
    with Program("edge_decode", task, python) as program:
        answer: dict[str, float] = program.answer()
    return answer


def _bundle(bench: Bench, detail: dict[str, Any], files: dict[str, int]) -> Figure:
    parts = {name: files[name] / 1e6 for name in BUNDLE}
    return bench.figure(
        "edge_bundle_mb",
        what=f"Decoder, vision, adapter and memory of the recipe {RECIPE}, as files",
        value=rounded(sum(parts.values()), 4),
        unit="MB",
        aim="<= 123",
        notes=(
            ", ".join(f"{name} {size:.1f} MB" for name, size in parts.items()) + ".",
            f"The folder to copy, with tokenizer and engine, has {sum(files.values()) / 1e6:.1f} MB.",
            "With the decoder of other recipes: "
            + ", ".join(
                f"{name} {sum(parts.values()) + (found['model.gguf'] - files['model.gguf']) / 1e6:.1f} MB"
                for name, found in detail["bytes"].items()
            )
            + ".",
        ),
        detail=detail,
    )


def _peak(bench: Bench, detail: dict[str, Any], captions: list[dict[str, Any]]) -> Figure:
    first = statistics.median(answer["first_seconds"] for answer in captions)
    return bench.figure(
        "edge_peak_rss_mb",
        what="Peak memory of a fresh process that captions an image, Python and mapped files included",
        value=rounded(max(answer["peak_bytes"] for answer in captions) / 1e6),
        unit="MB",
        aim="<= 250",
        notes=(f"From the image to the first word {first:.2f} s, vision and the opening of the decoder included.",),
        detail=detail,
    )


def _speed(bench: Bench, detail: dict[str, Any], races: list[dict[str, float]]) -> Figure:
    return bench.figure(
        "edge_tokens_per_second",
        what="Tokens decoded per second by the edge engine on 2 threads",
        value=rounded(statistics.median(answer["tokens_per_second"] for answer in races)),
        unit="tokens/s",
        aim=">= 40",
        notes=(f"A prompt is read at {statistics.median(a['read_per_second'] for a in races):.0f} tokens/s.",),
        detail=detail,
    )


def _speed_ratios(bench: Bench, detail: dict[str, Any], races: dict[str, list[dict[str, float]]]) -> list[Figure]:
    peak = {name: max(answer["peak_bytes"] for answer in answers) / 1e6 for name, answers in races.items()}
    decoding = f"Peak memory of decoding alone: {peak['ternary']:.0f} MB, Q4_0 {peak['q4']:.0f} MB."
    found = []
    for name, what, rate, more in (
        ("edge_vs_q4_speed", "Decoding", "tokens_per_second", {"aim": ">= 1", "notes": (decoding,)}),
        ("edge_vs_q4_read_speed", "Reading of a prompt", "read_per_second", {}),
    ):
        ours, theirs = ([answer[rate] for answer in races[racer]] for racer in ("ternary", "q4"))
        found.append(
            bench.figure(
                name,
                what=f"{what}, ternary against Q4_0 of the same decoder in llama.cpp",
                value=rounded(median_ratio(ours, theirs)),
                unit="x",
                peer="llama.cpp Q4_0",
                peer_value=rounded(statistics.median(theirs)),
                peer_unit="tokens/s",
                detail=detail,
                **more,
            )
        )
    return found


def _size_ratio(
    bench: Bench, detail: dict[str, Any], files: dict[str, int], peers: dict[str, dict[str, int]]
) -> Figure:
    sizes = {name: found["model.gguf"] / 1e6 for name, found in peers.items()}
    ratios = {name: found["model.gguf"] / 1e6 / sizes[name.split("-")[0]] for name, found in detail["bytes"].items()}
    return bench.figure(
        "edge_vs_q4_size",
        what=f"Size of the decoder of the recipe {RECIPE} against Q4_0 of the same decoder",
        value=rounded(ratios[RECIPE]),
        unit="x",
        aim="<= 0.45",
        peer="llama.cpp Q4_0",
        peer_value=rounded(sizes["32k"]),
        peer_unit="MB",
        notes=(
            "Each recipe against Q4_0 with the same vocabulary: "
            + ", ".join(f"{name} {ratio:.3f} x" for name, ratio in ratios.items())
            + f"; {RECIPE} against Q4_0 of the whole vocabulary {files['model.gguf'] / 1e6 / sizes['full']:.3f} x.",
        ),
        detail=detail,
    )

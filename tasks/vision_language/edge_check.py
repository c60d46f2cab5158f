"""How near an exported model is to the one that it was made of, on images that no training saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.vision_language.batch import VlmBatch
from models.vision_language.edge import EdgeAnswer
from tasks.quantise.edge_process import edge_logits
from tasks.quantise.onnx_run import OnnxRunner
from tasks.vision_language.edge import ANSWER, MODEL, QUESTION, VISION
from tasks.vision_language.released import VlmRelease


@torch.no_grad()
def compare_parts(folder: Path, release: VlmRelease, batch: VlmBatch) -> dict[str, float]:
    """Return how far the vectors of ONNX Runtime are from those of torch: the difference's norm over theirs.

    `prefix` is what the decoder reads of an image, `content` what the memory keeps of it, `cue` what a question asks
    the memory for, `reminder` what the decoder is told of a content that was found.
    """
    network, questions = release.network, batch.questions
    length, now = network.alignment.longest, torch.ones(len(questions.tokens), dtype=torch.int64)
    asked, attended = questions.tokens[:, :length], questions.attended[:, :length]
    embeddings = network.language.embed_tokens(asked)
    room = (0, length - asked.shape[1])
    rows = {
        "embeddings": torch.nn.functional.pad(embeddings, (0, 0, *room)),
        "attended": torch.nn.functional.pad(attended, room),
        "now": now,
    }
    seen = network.see(batch.images)
    expected = {
        "prefix": seen.prefix,
        "content": network.recall.contents(seen.pooled),
        "cue": network.ask(questions, now),
    }
    both = min(len(now), len(batch.images))
    asked_for = {"query": expected["cue"][:both], "content": expected["content"][:both]}
    expected["reminder"], _ = EdgeAnswer(network)(**asked_for)
    prefix, content = _outputs(folder / VISION, {"pixels": batch.images})
    (cue,) = _outputs(folder / QUESTION, rows)
    reminder, _ = _outputs(folder / ANSWER, asked_for)
    found = {"prefix": prefix, "content": content, "cue": cue, "reminder": reminder}
    return {name: float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected}


@torch.no_grad()
def compare_texts(folder: Path, release: VlmRelease, batch: VlmBatch) -> dict[str, float]:
    """Return what the board makes of the batch's texts, each with its image, beside what torch makes of them.

    `agreement` is the share of tokens of which both hold the same for likeliest, `divergence` the Kullback-Leibler
    divergence of the board's distributions from those of torch, `nats` and `nats_before` how unlikely the board and
    torch hold the texts; all a token. ValueError where there is no llama.cpp.
    """
    network, told = release.network, batch.told
    prefix, _ = _outputs(folder / VISION, {"pixels": batch.images})
    logits = edge_logits(folder / MODEL, vectors=prefix.numpy(), ids=told.tokens.numpy())
    found = torch.from_numpy(logits)[:, prefix.shape[1] - 1 : -1][told.learned].log_softmax(-1)
    shown = torch.ones(len(prefix), dtype=torch.bool)
    expected = network.logits(told, network.see(batch.images).prefix, shown)[told.learned].float().log_softmax(-1)
    right = told.tokens[told.learned][:, None]
    return {
        "agreement": float((found.argmax(-1) == expected.argmax(-1)).float().mean()),
        "divergence": float((expected.exp() * (expected - found)).sum(-1).mean()),
        "nats": float(-found.gather(1, right).mean()),
        "nats_before": float(-expected.gather(1, right).mean()),
    }


def told(parts: Mapping[str, float], texts: Mapping[str, float]) -> str:
    """Return both as a sentence."""
    found = ", ".join(f"{name} {100 * value:.2g} % off" for name, value in parts.items())
    if not texts:
        return f"against the model in torch: {found}; the decoder was not compared"
    return (
        f"against the model in torch: {found}; the decoder's likeliest token is the same in "
        f"{100 * texts['agreement']:.1f} %, KL {texts['divergence']:.4f} nats, texts {texts['nats']:.3f} nats a token "
        f"({texts['nats_before']:.3f} before)"
    )


def _outputs(path: Path, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Return what a file computes of inputs (N, ...), one after another as on a board."""
    run = OnnxRunner(path)
    count = len(next(iter(inputs.values())))
    rows = [run({name: value[k : k + 1] for name, value in inputs.items()}) for k in range(count)]
    return [torch.cat(column) for column in zip(*rows, strict=True)]

"""The published sizes on a CPU: they build, and one training step in bf16 fits into 24 GB.

SatSwinMAE in its base size on windows of 17 channels x 8 x 64 x 64, and a narrator on TinyLlama-1.1B: its frozen layers
in 4 bits (NF4, double quantisation), LoRA with r = 16 on its seven kinds of layers, 32 soft prompt tokens, captions
of 96 tokens; and TRM (two layers, n = 4, T = 2) that answers about what CLIP and a Perceiver saw. All weights are
random, because sizes and speed do not depend on them. Batches of 2; the peak is the resident memory of the process,
sampled every 20 ms.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, rounded
from benchmarks.figure import Figure
from benchmarks.process import run_weighed

MODELS = {
    "swin_mae": "SatSwinMAE base",
    "tinyllama": "a narrator on TinyLlama-1.1B in 4 bits with LoRA",
    "trm_vlm": "TRM of 1024 channels behind CLIP ViT-L/14-336 and 64 tokens of 4096 channels",
}


def run(bench: Bench) -> list[Figure]:
    """Measure one step of each."""
    figures = []
    for model, words in MODELS.items():
        bench.say(f"one step of {words}")
        answer, peak = run_weighed("full_size_step", model=model, quick=bench.quick)
        if answer["reached"] != answer["trained"]:
            raise RuntimeError(f"{words}: a gradient reached {answer['reached']:,} of {answer['trained']:,} weights")
        figures.append(_figure(bench, f"{model}_step_gb", words, answer, peak))
    return figures


def _figure(bench: Bench, name: str, words: str, answer: dict[str, Any], peak: int) -> Figure:
    return bench.figure(
        name,
        what=f"Peak memory of building {words} and training it for one step in bf16",
        value=rounded(peak / 1e9),
        unit="GB",
        aim="<= 24",
        notes=(
            f"{answer['parameters']:,} parameters, of which {answer['trained']:,} are trained; built in "
            f"{answer['build_seconds']:.1f} s, the step took {answer['step_seconds']:.1f} s.",
        ),
        detail={**answer, "peak_bytes": peak},
    )

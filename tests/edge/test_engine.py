"""An exported folder, used as on a board: its own files, its own interpreter, no torch."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from tasks.edge.memory import EpisodicMemory
from tasks.edge.picture import read_picture
from tasks.quantise.edge_folder import EdgeSettings, Prompt, write_edge_memory, write_engine
from tasks.quantise.gguf_file import write_gguf
from tasks.quantise.onnx_file import write_onnx
from tests.edge.conftest import ternary_qwen2

SIDE, WIDTH, SLOTS, LONGEST = 32, 224, 8, 6
PROMPT = Prompt(begin=(1, 2), caption=(3, 4), before=(5,), after=(6, 7))
RIGHT, WRONG = 0.3, 0.5
"""Nats by which an answer falls short: activations are rounded, so it is not to the word the one of torch."""


class TinyVision(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 64, 16, 16)
        self.project = torch.nn.Linear(64, WIDTH)

    def forward(self, pixels):
        prefix = 0.1 * torch.tanh(self.project(self.patches(pixels.float() / 32 - 4).flatten(2).transpose(1, 2)))
        return prefix, torch.nn.functional.normalize(prefix.mean(1), dim=-1)


def memory_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "prior_mean": (SLOTS, WIDTH), "vectors.weight": (WIDTH, WIDTH), "vectors.bias": (WIDTH,),
        "scope.query.weight": (8, WIDTH), "scope.query.bias": (8,), "scope.statistics.weight": (8, 3),
        "scope.statistics.bias": (8,), "scope.layers.1.weight": (8, 8), "scope.layers.1.bias": (8,),
        "scope.layers.3.weight": (1, 8), "scope.layers.3.bias": (1,),
    }  # fmt: skip
    drawn = {name: rng.normal(size=shape).astype(np.float32) / 15 for name, shape in shapes.items()}
    return drawn | {"prior_variance": np.ones(SLOTS, np.float32)}


class Exported:
    """A folder, and the same model in torch."""

    def __init__(self, folder, python) -> None:
        self.folder, self.python = folder, python
        torch.manual_seed(0)
        self.vision = TinyVision().eval()
        self.language, decoder = ternary_qwen2(WIDTH, heads=14, scale=2**-3)
        write_gguf(folder / "model.gguf", decoder)
        pixels = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
        write_onnx(folder / "vision.onnx", self.vision, {"pixels": pixels}, ["prefix", "code"])
        write_edge_memory(folder / "memory.safetensors", memory_tensors())
        words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(300)}, unk_token="w0"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        words.save(str(folder / "tokenizer.json"))
        settings = EdgeSettings(side=SIDE, prompt=PROMPT, end=(), longest=LONGEST, context=48, noise=0.05)
        write_engine(folder, settings)
        rng = np.random.default_rng(3)
        for name in ("one.png", "two.png"):
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / name)

    def run(self, *arguments, said: str = "", code: int = 0) -> str:
        done = subprocess.run([self.python, "run.py", *arguments], cwd=self.folder, input=said, capture_output=True,
                              text=True, check=False, env={"OMP_NUM_THREADS": "1"})  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    def opening(self, *images: str) -> torch.Tensor:
        """The vectors with which a conversation about the last image begins, the others having been seen before."""
        memory = EpisodicMemory(memory_tensors(), 0.05)
        for name in images:
            with torch.no_grad():
                prefix, code = self.vision(torch.from_numpy(read_picture(self.folder / name, SIDE))[None])
            recalled = memory.recall(code[0].double().numpy(), WIDTH)
            memory.write(code[0].double().numpy())
        return torch.cat([self.embed(PROMPT.begin), torch.from_numpy(recalled), prefix[0]])

    def embed(self, ids) -> torch.Tensor:
        return self.language.get_input_embeddings()(torch.tensor(ids)).detach()

    def regret(self, given: torch.Tensor, answer: str) -> float:
        """How much less likely its words are to torch than the likeliest ones, in nats, on the average."""
        ids = [int(word[1:]) for word in answer.split()]
        assert len(ids) == LONGEST
        vectors = torch.cat([given, self.embed(ids)])[None]
        with torch.no_grad():
            logits = self.language(inputs_embeds=vectors).logits[0, len(given) - 1 : -1].log_softmax(-1)
        return (logits.amax(-1) - logits[range(LONGEST), ids]).mean().item()


@pytest.fixture(scope="module")
def exported(edge, tmp_path_factory):
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed; make edge does that")
    return Exported(tmp_path_factory.mktemp("board"), edge)


def test_a_caption_is_the_one_of_torch(exported):
    caption = exported.run("one.png")
    given = torch.cat([exported.opening("one.png"), exported.embed(PROMPT.caption)])
    assert exported.regret(given, caption) < RIGHT
    other = torch.cat([exported.opening("two.png"), exported.embed(PROMPT.caption)])
    assert exported.regret(other, caption) > WRONG


def test_an_answer_is_the_one_of_torch(exported):
    answer = exported.run("one.png", "--ask", "w40 w41 w42")
    asked = exported.embed([*PROMPT.before, 40, 41, 42, *PROMPT.after])
    assert exported.regret(torch.cat([exported.opening("one.png"), asked]), answer) < RIGHT
    other = exported.embed([*PROMPT.before, 40, 41, 43, *PROMPT.after])
    assert exported.regret(torch.cat([exported.opening("one.png"), other]), answer) > WRONG


def test_a_conversation_goes_on_and_remembers(exported, tmp_path):
    path = tmp_path / "memory.safetensors"
    first = exported.run("one.png", "--memory", path)
    caption, answer, _ = exported.run("two.png", "--chat", "--memory", path, said="w50 w51\n\n").split("\n")
    opening = exported.opening("one.png", "two.png")
    told = torch.cat([opening, exported.embed(PROMPT.caption)])
    assert exported.regret(told, caption) < RIGHT
    turn = torch.cat([told, exported.embed([int(word[1:]) for word in caption.split()]),
                      exported.embed([*PROMPT.before, 50, 51, *PROMPT.after])])  # fmt: skip
    assert exported.regret(turn, answer.removeprefix("> ")) < RIGHT
    assert first != caption


def test_a_conversation_longer_than_the_context_begins_anew_with_its_image(exported):
    said = "w50 w51 w52 w53 w54 w55 w56 w57\n" * 4 + "\n"
    *_, last, _ = exported.run("one.png", "--chat", said=said).split("\n")
    asked = exported.embed([*PROMPT.before, *range(50, 58), *PROMPT.after])
    assert exported.regret(torch.cat([exported.opening("one.png"), asked]), last.removeprefix("> ")) < RIGHT


def test_drawn_answers_follow_their_seed(exported):
    drawn = {seed: exported.run("one.png", "--temperature", "1.5", "--seed", seed) for seed in ("1", "2")}
    assert drawn["1"] != drawn["2"]
    assert drawn["1"] == exported.run("one.png", "--temperature", "1.5", "--seed", "1")


def test_no_torch_is_imported(exported):
    program = (
        "import sys; from pathlib import Path; from edge.engine import EdgeEngine\n"
        "print(EdgeEngine(Path('.')).caption(Path('one.png')), {'torch', 'transformers', 'tasks'} & sys.modules.keys())"
    )
    done = subprocess.run([exported.python, "-c", program], cwd=exported.folder, capture_output=True, text=True)
    assert done.stdout.endswith(" set()\n"), done.stderr


def test_what_cannot_be_read_is_told_in_a_sentence(exported, tmp_path):
    assert "error: absent.png cannot be read as an image" in exported.run("absent.png", code=2)
    assert "name a folder that `millrace export` made" in exported.run("one.png", "--model", tmp_path, code=2)
    (tmp_path / "other").write_text("no memory")
    assert "holds no memory" in exported.run("one.png", "--memory", tmp_path / "other", code=2)

"""An exported folder, used as on a board: its own files, its own interpreter, no torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from configs.microvlm import VlmDesign
from configs.quantise import QuantiseRecipe
from models.language.decoder import random_decoder
from models.packed import pack
from models.ternary import quantise, set_strength
from models.vision_language.batch import Texts
from models.vision_language.microvlm import MicroVLM
from tasks.edge.picture import read_picture
from tasks.text.tokens import Tokens, train_tokenizer
from tasks.vision_language.conversation import Conversation
from tasks.vision_language.describe import question_reading
from tasks.vision_language.edge import write_edge
from tasks.vision_language.released import VlmRelease
from tests.command import millrace
from tests.conftest import REPOSITORY

LONGEST = 6
RIGHT, WRONG = 0.3, 0.5
"""Nats by which an answer falls short: activations are rounded, so it is not to the word the one of torch."""
DESIGN = {
    "model": {
        "vision": {"pretrained": None, "sizes": {
            "side": 32, "patch": 8, "hidden": 32, "layers": 1, "heads": 2, "intermediate": 32}},
        "adapter": {"heads": 2},
        "alignment": {"width": 32, "heads": 2, "longest": 24},
        "recall": {"memory": {"slots": 12}, "vectors": 2, "steps": 8, "injection": "prefix"},
    }
}  # fmt: skip
RECIPE = QuantiseRecipe(ternary=("language.hf.model.layers.*",), int8=("vision.*", "recall.tell"), embedding="int4",
                        embeddings=("language.hf.model.embed_tokens",))  # fmt: skip
DECODER = {"model_type": "qwen2", "hidden_size": 224, "num_hidden_layers": 2, "num_attention_heads": 14,
           "num_key_value_heads": 2, "intermediate_size": 400, "tie_word_embeddings": True,
           "max_position_embeddings": 256}  # fmt: skip


def packed_release(folder) -> VlmRelease:
    """A model with random weights, as it comes out of packing."""
    train_tokenizer(["what is in this picture", "which one did you see before"] * 3, 290, folder)
    tokens, design = Tokens.load(folder), VlmDesign.model_validate(DESIGN)
    torch.manual_seed(0)
    language = random_decoder(DECODER | {"vocab_size": len(tokens)})
    for name, value in language.named_parameters():
        torch.nn.init.normal_(value, 1.0 if "norm" in name else 0.0, 0.2 if "proj.weight" in name else 0.1)
    network = MicroVLM(design.model, language).eval()
    torch.nn.init.normal_(network.vision.hf.embeddings.patch_embeddings.projection.weight, std=0.2)
    network.recall.scope.layers[-1].bias.data.fill_(3.0)  # questions are about the memory
    quantise(network, RECIPE)
    set_strength(network, 1.0)
    pack(network, RECIPE.layout)
    return VlmRelease(network, tokens, design, False, RECIPE)


class Exported:
    """A folder, and the same model in torch."""

    def __init__(self, folder, python, work) -> None:
        self.folder, self.python, self.release = folder, python, packed_release(work)
        write_edge(folder, self.release, "tiny")
        rng = np.random.default_rng(3)
        for name in ("one.png", "two.png"):
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / name)

    def says(self, *calls: str) -> list[list[int]]:
        """The token ids of what the engine says in each of some calls that begin a new list."""
        program = (
            "import json; from pathlib import Path; from edge import engine as room\n"
            "said, choose = [], room.choose\n"
            "def listen(*arguments):\n"
            "    said[-1].append(choose(*arguments))\n"
            "    return said[-1][-1]\n"
            "room.choose = listen\n"
            "engine = room.EdgeEngine(Path('.'))\n"
        ) + "".join(f"said.append([])\n{call}\n" for call in calls)
        done = subprocess.run([self.python, "-c", f"{program}print(json.dumps(said))"], cwd=self.folder,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def regret(self, answer: list[int], prompt: str, shown: str | None, before: tuple[str, ...] | None = None) -> float:
        """How much less likely to torch than its likeliest words an answer is, in nats, on the average.

        `shown` is the image that is there, `before` those that are remembered, where the memory is asked.
        """
        network, tokens = self.release.network, self.release.tokens
        head = [tokens.begin, *tokens.ids(prompt)]
        ids = torch.tensor([[*head, *answer]])
        told = Texts(ids, torch.ones_like(ids).bool(), torch.ones_like(ids).bool())
        with torch.no_grad():
            prefix = network.see(self.pixels(shown or "one.png")).prefix
            content = scope = None
            if before is not None:
                reading = self.reading(before, prompt, shown)
                content, scope = reading.content[0], reading.scope[0]
            logits = network.logits(told, prefix, torch.tensor([shown is not None]), content, scope)
        scores = logits[0, len(head) :].log_softmax(-1)
        return (scores.amax(-1) - scores[range(len(answer)), answer]).mean().item()

    def pixels(self, name: str) -> torch.Tensor:
        return torch.from_numpy(read_picture(self.folder / name, *self.release.network.vision.square))[None]

    def reading(self, before: tuple[str, ...], prompt: str, shown: str | None):
        network, state = self.release.network, None
        for number, name in enumerate(before):
            state = network.recall.write_next(network.see(self.pixels(name)).pooled[0], state, number)
        now = torch.tensor([len(before) - (shown is not None)])
        return question_reading(network, state, now, self.release.tokens, [prompt])

    def run(self, *arguments, said: str = "", code: int = 0) -> str:
        done = subprocess.run([self.python, "run.py", *arguments], cwd=self.folder, input=said, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def exported(edge, tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("board"), edge, tmp_path_factory.mktemp("work"))


DESCRIBE = "Describe this image:"


def test_a_caption_is_the_one_of_torch(exported):
    (caption,) = exported.says("engine.caption(Path('one.png'), longest=6)")
    assert len(caption) == LONGEST
    assert exported.regret(caption, DESCRIBE, "one.png") < RIGHT
    assert exported.regret(caption, DESCRIBE, "two.png") > WRONG


def test_answers_are_those_of_torch_with_what_it_remembers(exported):
    *_, answer = exported.says(
        "engine.show(Path('one.png'))", "engine.show(Path('two.png'))", "engine.ask('which one', longest=6)"
    )
    assert exported.regret(answer, "which one", "two.png", ("one.png", "two.png")) < RIGHT
    assert exported.regret(answer, "which one", "two.png") > WRONG, "without the memory"


def test_a_conversation_is_taken_up_from_its_file_here_and_in_torch(exported, tmp_path):
    path = tmp_path / "memory.safetensors"
    exported.run("one.png", "two.png", "--chat", "--memory", str(path), said="\n")
    torch_side = Conversation(exported.release)
    torch_side.load(path, "tiny")
    assert torch_side.seen == 2
    torch_side.save(path, "tiny")
    _, answer = exported.says(f"engine.load_memory(Path({str(path)!r}))", "engine.ask('which one', longest=6)")
    assert exported.regret(answer, "which one", None, ("one.png", "two.png")) < RIGHT
    torch_side.save(path, "other")
    message = exported.run("one.png", "--memory", str(path), code=2)
    assert "is the memory of other, not of tiny" in message


def test_pieces_are_the_whole_answer(exported):
    text = "engine.show(Path('one.png')); pieces = list(engine.stream('you', longest=9))"
    compared = "assert ''.join(pieces).strip() == engine.ask('you', longest=9) and len(pieces) > 1, pieces"
    first, second = exported.says(text, compared)
    assert first == second


def test_drawn_answers_follow_their_seed(exported):
    first, second, third = exported.says(
        *(f"engine.caption(Path('one.png'), longest=6, temperature=1.5, seed={seed})" for seed in (1, 2, 1))
    )
    assert first == third != second


def test_an_answer_ends_where_the_context_does(exported):
    (caption,) = exported.says("engine._config['context'] = 60; engine.caption(Path('one.png'), longest=500)")
    prompt = exported.release.tokens.ids(DESCRIBE)
    assert len(caption) == 60 - exported.release.network.adapter.tokens - len(prompt) - 1 + 1


def test_a_chat_shows_images_and_answers(exported):
    said = exported.run("--chat", "--longest", "6", said="image one.png\nyou\n\n")
    assert said.count("> ") == 3
    assert "nothing to speak of yet" in exported.run("--chat", said="you\n\n", code=2)


def test_no_torch_is_imported(exported):
    exported.says(
        "engine.show(Path('one.png')); engine.ask()",
        "import sys; assert not {'torch', 'transformers', 'tasks', 'models'} & sys.modules.keys()",
    )


def test_what_cannot_be_read_is_told_in_a_sentence(exported, tmp_path):
    assert "error: absent.png cannot be read as an image" in exported.run("absent.png", code=2)
    assert "name a folder that `millrace export` made" in exported.run("one.png", "--model", str(tmp_path), code=2)
    (tmp_path / "other").write_text("no memory")
    assert "cannot be read as a memory" in exported.run("one.png", "--memory", str(tmp_path / "other"), code=2)


def test_a_memory_of_keys_and_values_is_refused(exported, tmp_path):
    release = exported.release
    by_layers = release.design.model.recall.model_copy(update={"injection": "key_value"})
    design = release.design.model.model_copy(update={"recall": by_layers})
    network = MicroVLM(design, random_decoder(DECODER | {"vocab_size": len(release.tokens)}))
    with pytest.raises(ValueError, match=r"train with recall\.injection prefix"):
        write_edge(tmp_path, dataclasses.replace(release, network=network), "tiny")


def test_the_verbs_caption_and_chat_on_an_exported_folder(exported, tmp_path):
    """The command line hands images, prompts and choices over, and brings back the engine's words and its errors."""
    model = ("--engine", "edge", "--model", str(exported.folder))
    image = str(exported.folder / "one.png")
    said = millrace("caption", image, *model, "--max-new-tokens", "6", root=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == exported.run("one.png", "--longest", "6").strip()
    asked = millrace("caption", image, *model, "--max-new-tokens", "6", "--prompt", "you", root=tmp_path)
    assert asked.stdout.strip() == exported.run("one.png", "--longest", "6", "--prompt", "you").strip()
    assert millrace("caption", "absent.png", *model, root=tmp_path).returncode == 2
    memory = tmp_path / "memory.safetensors"
    command = [sys.executable, "-m", "flows", "chat", image, *model, "--memory", str(memory), "--root", str(tmp_path)]
    talk = subprocess.run(command, cwd=REPOSITORY, input="you\n\n", capture_output=True, text=True, check=False)
    assert talk.returncode == 0, talk.stderr
    assert talk.stdout.count("> ") == 2
    assert memory.exists()

"""Decoders of every kind behind one interface: sequences, carried supervision, low-rank adapters, beams."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.answering import AnswererDesign, AnsweringRecipe
from configs.recursive import TrmConfig
from configs.trm_vlm import TrmVlmConfig
from storage.question_set import QuestionSet
from tasks.answering.objective import AnswerObjective, nats_per_answer
from tasks.answering.released import AnswererRelease, assemble
from tasks.answering.samples import AnswerSample, Asking, collate
from tasks.answering.writing import Writing, answers
from tasks.text.tokens import Tokens, train_tokenizer
from tasks.training.objective import Moment
from tasks.training.release import CONFIG, WEIGHTS, write_config, write_weights
from tests.once import only
from tests.trm_vlm.tiny import CONFIG as TINY
from tests.trm_vlm.tiny import LENGTHS, LLAMA, TRM


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Tokens:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["How many stars are there? 3", "What colour is it? red"], 300, folder)
    return Tokens.load(folder)


def objective_of(store, decoder, tokenizer=None, **design) -> AnswerObjective:
    made = min(store.assets("answerer"), key=lambda a: a.key).folder
    return AnswerObjective({
        "questions": str(only(store, "question_set").folder), "encoder": "image_encoder/x",
        "tokenizer": str(tokenizer or made / "tokenizer"), "design": {**LENGTHS, "decoder": decoder, **design},
        "halting_weight": 0.5, "validation_questions": 8,
    })  # fmt: skip


def test_a_sequence_is_question_and_answer_and_only_the_answer_is_learned(tokens):
    asking = Asking(tokens, longest_question=4, longest_answer=3)
    question, answer = asking.question("How many stars are there?"), asking.answer("3")
    assert question == [tokens.begin, *tokens.ids("How many stars are there?")[-4:]], "of a long question the end"
    assert answer[-1] == tokens.end
    assert len(asking.answer("red red red red")) == 3
    features = torch.zeros(2, 8, dtype=torch.float16)
    batch = collate([AnswerSample(features, question, answer, 0), AnswerSample(features, question[:2], [5], 12)])
    assert batch.tokens.shape == (2, 12)
    assert batch.heads.tolist() == [5, 2]
    for row, ids in enumerate((answer, [5])):
        assert batch.tokens[row][batch.learned[row]].tolist() == ids
    assert batch.attended.sum(-1).tolist() == [5 + len(answer), 3]


@pytest.mark.parametrize("vision", [True, False])
def test_the_loss_of_an_answer_is_the_mean_over_its_tokens_of_the_next_tokens_nats(answered, tokens, vision):
    torch.manual_seed(0)
    design = AnswererDesign.model_validate({**LENGTHS, "decoder": LLAMA, "vision": vision})
    model = assemble(design, tokens, QuestionSet(only(answered, "question_set").folder)).eval()
    features = torch.randn(model.tokens or 4, 16).half()
    sample = AnswerSample(features, [tokens.begin, 7, 8], [9, 10, tokens.end], 0)
    with torch.no_grad():
        found = nats_per_answer(model(collate([sample])), collate([sample]))[0]
        image = model.image_tokens(features[None])[0]
        total = 0.0
        for k, token in enumerate(sample.answer):
            words = torch.tensor([*sample.question, *sample.answer[:k]])
            embeds = torch.cat([image, model.language.embed_tokens(words)])[None]
            total -= F.log_softmax(model.language(embeds)[0, -1], -1)[token]
    torch.testing.assert_close(found, total / 3, atol=1e-5, rtol=1e-5)


def test_questions_stay_with_their_states_until_they_are_done(answered):
    objective = objective_of(answered, TRM | {"ramp": [0, 0]})
    torch.manual_seed(0)
    model = objective.build()
    source = objective.source("train")
    batches = [objective.collate([source.sample(4 * n + k, 0) for k in range(4)]) for n in range(5)]
    held = []
    for step, batch in enumerate(batches):
        objective.moment = Moment(0, step, 5, 0, step)
        objective.losses(model, batch)
        state = objective.state_dict()
        held.append(state["0.rows.tokens"])
        assert state["0.state.steps"].tolist() == [step % 3 + 1] * 4
    assert torch.equal(held[0], held[1])
    assert torch.equal(held[1], held[2])
    assert torch.equal(held[3], batches[3].tokens), "three steps, then fresh questions"
    again = objective_of(answered, TRM | {"ramp": [0, 0]})
    again.load_state_dict({name: tensor.clone() for name, tensor in objective.state_dict().items()})
    for one in (objective, again):
        one.moment = Moment(0, 5, 5, 0, 5)
    assert torch.equal(objective.losses(model, batches[0])["nll"], again.losses(model, batches[0])["nll"])


def test_the_steps_that_a_question_stays_rise():
    config = TrmConfig(supervision_steps=5, ramp=(0.2, 0.6))
    assert [config.steps_at(x) for x in (0.0, 0.2, 0.3, 0.41, 0.6, 1.0)] == [1, 1, 2, 3, 5, 5]
    with pytest.raises(ValueError, match="must not end before it begins"):
        TrmConfig(ramp=(0.6, 0.2))


def test_a_pretrained_decoder_is_adapted_and_stays_where_it_is(answered, tmp_path):
    folder = tmp_path / "qwen"
    train_tokenizer(["How many stars are there? 3"], 300, folder)
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(
        vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64,
    )).save_pretrained(folder)  # fmt: skip
    decoder = {"kind": "qwen2", "pretrained": str(folder)}
    adaptation = {"lora": {"r": 2, "target_modules": ["q_proj", "down_proj"]}}
    objective = objective_of(answered, decoder, folder, adaptation=adaptation)
    model = objective.build()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert (
        {name for name in trained if name.startswith("language.")}
        == {name for name in trained if "lora_" in name}
        != set()
    )
    source = objective.source("train")
    objective.losses(model, objective.collate([source.sample(k, 0) for k in range(3)]))["nll"].backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if name in trained)
    left_out = [name for name in model.state_dict() if not objective.stored(name)]
    assert not any("lora_" in name for name in left_out)
    assert any("embed_tokens" in name for name in left_out)
    place = tmp_path / "root" / "answerer" / "key"
    place.mkdir(parents=True)
    write_weights(place / WEIGHTS, model, objective.stored)
    write_config(place, objective.RELEASE, objective.release_config(), {"metrics": {}}, left_out)
    again = AnswererRelease.from_release(place).network.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    assert json.loads((place / CONFIG).read_text())["model"]["encoder"] == "image_encoder/x"


def test_a_wide_beam_finds_the_likeliest_answer_of_all(answered, tokens):
    """Against every answer of up to two tokens, scored one by one."""
    torch.manual_seed(3)
    design = AnswererDesign.model_validate({**LENGTHS, "decoder": LLAMA})
    model = assemble(design, tokens, QuestionSet(only(answered, "question_set").folder)).eval()
    with torch.no_grad():
        model.language.embedding_table.mul_(8)  # distributions that prefer something
        model.language.hf.get_output_embeddings().weight.mul_(8)
    asking, features = Asking.of(tokens, design), torch.randn(1, 4, 16).half()
    count, question = len(tokens), asking.question("What?")
    embeds, _ = model.prompts(features, [question])

    def scores(*before: int) -> torch.Tensor:
        words = model.language.embed_tokens(torch.tensor(before, dtype=torch.int64))
        with torch.no_grad():
            return F.log_softmax(model.language(torch.cat([embeds[0], words])[None])[0, -1], -1)

    best = {(): float(scores()[tokens.end])}
    for first in range(count):
        if first != tokens.end:
            best[(first,)] = float(scores()[first] + scores(first)[tokens.end]) / 2
    expected = max(best, key=lambda ids: best[ids])
    wide = answers(model, asking, features, ["What?"], Writing(2, beams=count))
    assert wide == [tokens.text(list(expected))]
    drawn = {answers(model, asking, features, ["What?"], Writing(
        2, temperature=1.0, generator=torch.Generator().manual_seed(k)))[0] for k in range(4)}  # fmt: skip
    assert len(drawn) > 1


@pytest.mark.parametrize(("changes", "said"), [
    ({"alignment": None}, "decoders see through an image encoder"),
    ({"alignment": None, "answering": None, "alignment_data": {}}, "alignment_data is for an image encoder"),
])  # fmt: skip
def test_parts_that_need_others_are_refused_without_them(changes, said):
    with pytest.raises(ValueError, match=said):
        TrmVlmConfig.model_validate({**TINY, **changes})


def test_packed_models_name_a_decoder():
    recipe = TINY["answering"]["packed"]["few_bits"]
    for packed in ({"x": {**recipe, "decoder": "none"}}, {"trm": recipe}):
        with pytest.raises(ValueError, match="must have a name of its own, and name one of"):
            AnsweringRecipe.model_validate({**TINY["answering"], "packed": packed})


def test_a_sequence_that_does_not_fit_is_refused(answered):
    small = {**LLAMA, "sizes": {**LLAMA["sizes"], "positions": 16}}
    with pytest.raises(ValueError, match="up to 27 tokens, and the decoder takes 16"):
        objective_of(answered, small).build()

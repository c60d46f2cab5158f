"""Decoders of every kind behind one interface: sequences, carried supervision, low-rank adapters, beams."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

from configs.answering import AnswererDesign, AnsweringRecipe
from configs.language import HrmActV1Config
from configs.recursive import TrmConfig
from configs.trm_vlm import TrmVlmConfig
from models.language.build import build_language_model
from models.language.transformers_lm import TransformersLM
from models.language.trm import steps_at
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


def objective_of(store, decoder, tokenizer=None, at_once=1, **design) -> AnswerObjective:
    made = min(store.assets("answerer"), key=lambda a: a.key).folder
    return AnswerObjective({
        "questions": str(only(store, "question_set").folder), "encoder": "image_encoder/x",
        "tokenizer": str(tokenizer or made / "tokenizer"), "design": {**LENGTHS, "decoder": decoder, **design},
        "questions_at_once": at_once, "halting_weight": 0.5, "validation_questions": 8,
    })  # fmt: skip


def test_a_sequence_is_question_and_answer_and_only_the_answer_is_learned(tokens):
    asking = Asking(tokens, longest_question=4, longest_answer=3)
    question, answer = asking.question("How many stars are there?"), asking.answer("3")
    assert question == [tokens.begin, *tokens.ids("How many stars are there?")[-4:]], "of a long question the end"
    assert answer[-1] == tokens.end
    assert len(asking.answer("red red red red")) == 3
    features = torch.zeros(2, 8, dtype=torch.float16)
    pairs = [(question, answer), (question[:2], [5])]
    batch = collate(
        [AnswerSample(features, [pair], length=length) for pair, length in zip(pairs, (0, 12), strict=True)]
    )
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
    question, answer = [tokens.begin, 7, 8], [9, 10, tokens.end]
    sample = AnswerSample(features, [(question, answer)])
    with torch.no_grad():
        found = nats_per_answer(model(collate([sample])), collate([sample]))[0]
        image = model.image_tokens(features[None])[0]
        total = 0.0
        for k, token in enumerate(answer):
            words = torch.tensor([*question, *answer[:k]])
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
        held.append(state["0.rows.tokens"].flatten(0, 1))
        assert state["0.state.steps"].tolist() == [step % 3 + 1] * 4
    assert torch.equal(held[0], held[1])
    assert torch.equal(held[1], held[2])
    assert torch.equal(held[3], batches[3].tokens), "three steps, then fresh questions"
    again = objective_of(answered, TRM | {"ramp": [0, 0]})
    again.load_state_dict({name: tensor.clone() for name, tensor in objective.state_dict().items()})
    for one in (objective, again):
        one.moment = Moment(0, 5, 5, 0, 5)
    assert torch.equal(objective.losses(model, batches[0])["nll"], again.losses(model, batches[0])["nll"])


TRM_HALTS = TRM | {"halting": True, "ramp": [0, 0]}
QWEN = {"kind": "qwen2", "pretrained": None, "sizes": {
    "hidden": 16, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 32, "positions": 64}}  # fmt: skip


def test_the_loss_of_questions_that_stay_is_weighed_as_the_fresh_ones_that_are_counted(answered):
    """Items with many questions stay while items with few come: their mean must not count as a sum over the few."""
    one, reference = (objective_of(answered, TRM_HALTS, at_once=4) for _ in range(2))
    torch.manual_seed(0)
    model = one.build()
    source = one.source("train")
    by_count = sorted(range(len(source)), key=lambda k: len(source.places[k]))
    few, many = (one.collate([source.sample(k, 0) for k in places]) for places in (by_count[:2], by_count[-2:]))
    assert few.asked.sum() < many.asked.sum()
    for objective, fresh in ((one, few), (reference, many)):
        objective.moment = Moment(0, 0, 5, 0, 0)
        objective.losses(model, many)
        objective.moment = Moment(0, 1, 5, 0, 1)
        assert not objective.state_dict()["0.state.halted"].any()
        objective.held = {n: loss / objective.weigher()(fresh)[n] for n, loss in objective.losses(model, fresh).items()}
    torch.testing.assert_close(one.held, reference.held)


@pytest.mark.parametrize("vision", [True, False])
@pytest.mark.parametrize(
    "decoder", [LLAMA, QWEN, TRM_HALTS, TRM | {"mixing": "concatenated", "ramp": [0, 0]}],
    ids=["llama", "qwen2", "trm", "trm concatenated"],
)  # fmt: skip
def test_questions_at_once_are_answered_and_learned_from_as_one_by_one(answered, decoder, vision):
    """Losses, logits and gradients, over three steps of carried supervision, of items with few and with many."""
    one, many = (objective_of(answered, decoder, at_once=count, vision=vision) for count in (1, 4))
    torch.manual_seed(0)
    model = one.build().double()
    source, alone = many.source("train"), one.source("train")
    assert sorted(place for places in source.places for place in places) == list(range(len(alone)))
    chosen = sorted(range(len(source)), key=lambda k: len(source.places[k]))
    chosen = [*chosen[:2], *chosen[-2:]]
    assert len({len(source.places[k]) for k in chosen}) > 1, "some have fewer"
    batch = many.collate([source.sample(k, 0) for k in chosen])
    single = one.collate([alone.sample(place, 0) for k in chosen for place in source.places[k]])
    for step in range(3):
        gradients = []
        for objective, each in ((one, single), (many, batch)):
            objective.moment = Moment(0, step, 3, 0, step)
            losses = objective.losses(model, each)
            model.zero_grad()
            sum(losses.values()).backward()
            gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            gradients[-1] |= losses
        torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-5)
    with torch.no_grad():
        logits, expected = model(batch), model(single)
    length = min(batch.tokens.shape[1], single.tokens.shape[1])
    there = batch.attended[batch.asked][:, :length]
    torch.testing.assert_close(
        logits[batch.asked][:, :length][there], expected[:, :length][there], atol=1e-7, rtol=1e-5
    )
    for objective, each in ((one, single), (many, batch)):
        assert objective.weigher()(each)["nll"] == len(single.tokens)


def test_a_decoder_that_cannot_share_a_beginning_says_so(tokens):
    windowed = Qwen2Config(
        vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, use_sliding_window=True, sliding_window=4,
        max_window_layers=1,
    )  # fmt: skip
    recurrent = HrmActV1Config(hidden=32, heads=2, positions=32)
    for model in (TransformersLM(Qwen2ForCausalLM(windowed)), build_language_model(recurrent, 300)):
        with pytest.raises(ValueError, match="set questions_at_once to 1"):
            model(torch.zeros(1, 4, model.width), torch.ones(1, 4, 4, dtype=torch.bool), torch.arange(4))


def test_the_steps_that_a_question_stays_rise():
    config = TrmConfig(supervision_steps=5, ramp=(0.2, 0.6))
    assert [steps_at(config, x) for x in (0.0, 0.2, 0.3, 0.41, 0.6, 1.0)] == [1, 1, 2, 3, 5, 5]
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
    recipe = TINY["answering"]["packed"]["trm-ternary"]
    for packed in ({"x": {**recipe, "decoder": "none"}}, {"trm": recipe}):
        with pytest.raises(ValueError, match="must have a name of its own, and name one of"):
            AnsweringRecipe.model_validate({**TINY["answering"], "packed": packed})


def test_a_sequence_that_does_not_fit_is_refused(answered):
    small = {**LLAMA, "sizes": {**LLAMA["sizes"], "positions": 16}}
    with pytest.raises(ValueError, match="up to 27 tokens, and the decoder takes 16"):
        objective_of(answered, small).build()

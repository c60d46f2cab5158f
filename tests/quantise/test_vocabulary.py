"""Smaller vocabularies write a corpus as before, layers are left out, and sizes are told."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from tasks.quantise.layers import prune_layers
from tasks.quantise.vocabulary import prune_embedding, prune_vocabulary
from tasks.text.tokens import BEGIN, END, PAD, Tokens, train_tokenizer
from tests.quantise.tiny import decoder, ids

TEXT = "storm over the northern sea moves slowly east while winds reach 25 m/s and waves grow to 7 metres"
WORDS = TEXT.split()
TEXTS = [" ".join(WORDS[start : start + 6]) for start in range(len(WORDS))] * 2
TRAINED_ON = [*TEXTS, "ein Sturm zieht über die Nordsee — naïve café 東京", "unrelated cooking recipes with butter"] * 4
MARKS = [BEGIN, END, PAD]


def wrapped(tokenizer: Tokenizer) -> Tokens:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PAD)
    return Tokens(fast, fast.bos_token_id, fast.eos_token_id)


def byte_level(folder) -> Tokens:
    train_tokenizer(TRAINED_ON, 420, folder)
    return Tokens.load(folder)


def qwen(folder) -> Tokens:
    """The class of Qwen2's tokenizer: specials at the end of the vocabulary."""
    state = byte_level(folder).tokenizer
    vocabulary = {name: id_ - 3 for name, id_ in state.get_vocab().items() if id_ >= 3}
    merges = json.loads(state.backend_tokenizer.to_str())["model"]["merges"]
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=[tuple(pair) for pair in merges], additional_special_tokens=["<|image|>"]
    )
    tokenizer.chat_template = "{{ messages }}"
    return Tokens(tokenizer, tokenizer.eos_token_id, tokenizer.eos_token_id)


def byte_fallback(folder) -> Tokens:
    """As Llama 2 has it: spaces are letters, and bytes stand for letters that there are not."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback(), decoders.Fuse()])
    specials = ["<unk>", *MARKS, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        TRAINED_ON, trainers.BpeTrainer(vocab_size=460, special_tokens=specials, limit_alphabet=40, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return wrapped(tokenizer)


def unigram(folder) -> Tokens:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=["<unk>", *MARKS], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    return wrapped(tokenizer)


def word_level(folder) -> Tokens:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", *MARKS], show_progress=False)
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    return wrapped(tokenizer)


KINDS = {function.__name__: function for function in (byte_level, qwen, byte_fallback, unigram, word_level)}


@pytest.fixture(scope="module", params=KINDS)
def tokens(request, tmp_path_factory) -> Tokens:
    return KINDS[request.param](tmp_path_factory.mktemp("tokenizer"))


def check(old: Tokens, new: Tokens, kept: list[int], texts: list[str]) -> None:
    assert kept == sorted(kept)
    assert len(new) == len(kept)
    for text in texts:
        assert new.text(new.ids(text)) == old.text(old.ids(text))
    names, before = new.tokenizer.get_vocab(), old.tokenizer.get_vocab()
    assert {name: kept[place] for name, place in names.items()} == {name: before[name] for name in names}
    assert (kept[new.begin], kept[new.end]) == (old.begin, old.end)


def test_a_corpus_is_written_with_the_same_tokens(tokens):
    size = len(tokens) - 8
    new, kept = prune_vocabulary(tokens, iter(TEXTS), size)
    check(tokens, new, kept, TEXTS)
    assert len(kept) == size
    for text in TEXTS:
        assert [kept[token] for token in new.ids(text)] == tokens.ids(text)
        marked = new.tokenizer(text).input_ids
        assert [kept[token] for token in marked] == tokens.tokenizer(text).input_ids


def test_wherever_all_used_tokens_are_kept_the_corpus_has_the_same_tokens(tokens):
    used = {token for text in TEXTS for token in tokens.ids(text)}
    sizes = range(len(used), len(tokens), 9)
    seen = set()
    for size in sizes:
        try:
            new, kept = prune_vocabulary(tokens, TEXTS, size)
        except ValueError:
            continue
        seen.add(whole := used <= set(kept))
        same = all([kept[token] for token in new.ids(text)] == tokens.ids(text) for text in TEXTS)
        assert same or not whole
    assert True in seen


def test_the_smallest_vocabulary_that_is_allowed_still_writes_the_corpus(tokens):
    with pytest.raises(ValueError, match="cannot be written with 5 tokens; allow at least") as caught:
        prune_vocabulary(tokens, TEXTS, 5)
    least = int(str(caught.value).rsplit(" ", 1)[1])
    assert least < len(tokens)
    new, kept = prune_vocabulary(tokens, TEXTS, least)
    assert len(kept) == least
    check(tokens, new, kept, TEXTS)


def test_a_pruned_tokenizer_is_saved_and_loaded(tokens, tmp_path):
    new, _ = prune_vocabulary(tokens, TEXTS, len(tokens) - 8)
    new.tokenizer.save_pretrained(tmp_path)
    again = Tokens.load(tmp_path)
    assert [again.ids(text) for text in TEXTS] == [new.ids(text) for text in TEXTS]
    assert (again.end, again.tokenizer.pad_token_id) == (new.end, new.tokenizer.pad_token_id)
    assert again.tokenizer.chat_template == tokens.tokenizer.chat_template


@pytest.fixture(scope="module")
def byte_tokens(tmp_path_factory) -> Tokens:
    return byte_level(tmp_path_factory.mktemp("tokenizer"))


@given(texts=st.lists(st.text(max_size=12), min_size=1, max_size=6), size=st.integers(260, 420))
@settings(max_examples=12, deadline=None)
def test_bytes_write_any_text(byte_tokens, texts, size):
    new, kept = prune_vocabulary(byte_tokens, TEXTS, size)
    assert len(kept) == min(size, len(byte_tokens))
    for text in texts:
        assert new.text(new.ids(text)) == byte_tokens.text(byte_tokens.ids(text))


@given(texts=st.lists(st.text(alphabet="abcd e", min_size=1, max_size=14), min_size=1, max_size=8), data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_corpus_and_size_give_its_texts_back(tokens, texts, data):
    try:
        prune_vocabulary(tokens, texts, 1)
    except ValueError as error:
        least = int(str(error).rsplit(" ", 1)[1])
    new, kept = prune_vocabulary(tokens, texts, data.draw(st.integers(least, len(tokens) + 5)))
    check(tokens, new, kept, texts)


def test_other_kinds_are_refused():
    tokenizer = Tokenizer(models.WordPiece({BEGIN: 0, END: 1, PAD: 2, "a": 3}, unk_token=PAD))
    with pytest.raises(ValueError, match="WordPiece tokenizer cannot be pruned"):
        prune_vocabulary(wrapped(tokenizer), ["a"], 4)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_embedding_and_head_are_chosen(tied):
    model, kept = decoder("llama", tied), [1, 5, 90]
    x = torch.tensor([[0, 2, 1]])
    old = torch.tensor(kept)[x]
    with torch.no_grad():
        expected = model(old).logits[..., kept]
        prune_embedding(model.get_input_embeddings(), model.get_output_embeddings(), kept)
        torch.testing.assert_close(model(x).logits, expected)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert (model.lm_head.out_features, model.model.embed_tokens.num_embeddings) == (3, 3)


def test_a_bias_and_the_row_of_padding_go_along():
    embedding, head = nn.Embedding(6, 4, padding_idx=5), nn.Linear(4, 6)
    bias = head.bias.detach().clone()
    prune_embedding(embedding, head, [2, 5])
    assert head.bias.tolist() == bias[[2, 5]].tolist()
    assert embedding.padding_idx == 1
    assert embedding(torch.tensor([1])).abs().max() == 0


def test_a_decoder_with_fewer_layers_generates_with_its_cache():
    model, whole = decoder("llama"), decoder("llama")
    model.model.layers = prune_layers(model.model.layers, [1])
    model.config.num_hidden_layers = 1
    with torch.no_grad():
        hidden = whole.model.embed_tokens(ids())
        places = torch.arange(9)[None]
        states = whole.model.layers[1](hidden, position_embeddings=whole.model.rotary_emb(hidden, places))
        expected = whole.lm_head(whole.model.norm(states))
        torch.testing.assert_close(model(ids()).logits, expected)
        cached, plain = (
            model.generate(ids(), max_new_tokens=4, do_sample=False, use_cache=use, pad_token_id=0)
            for use in (True, False)
        )
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("keep", [[], [0, 0], [2]])
def test_layers_that_there_are_not_cannot_be_kept(keep):
    with pytest.raises(ValueError, match="name some of 0 to 1"):
        prune_layers(nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]), keep)

"""A smaller vocabulary: the tokens that a corpus uses, and those that any text can be written with.

Tokens keep their order, so that token i of the new tokenizer is token `kept[i]` of the old one, and rows of an
embedding are chosen by the same list. Where the new vocabulary has room for all that the corpus uses, its texts become
the same tokens as before.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from tasks.text.tokens import Tokens

BATCH = 1000
"""Texts that are encoded at a time."""
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
"""Tokens for the bytes of characters that have none."""


def prune_vocabulary(tokens: Tokens, texts: Iterable[str], size: int) -> tuple[Tokens, list[int]]:
    """Return a tokenizer of at most `size` tokens, and the old id of each.

    Every text of the corpus is decoded from its new tokens as it was from the old ones. Tokens that the corpus uses
    most are kept first, then those with the lowest ids.

    Args:
        tokens: a tokenizer of the kinds BPE, Unigram or WordLevel.
        texts: the corpus; it is read once.
        size: most tokens of the new vocabulary.

    Raises:
        ValueError: the tokenizer is of another kind, or cannot write the corpus with so few tokens.
    """
    old: Tokenizer = tokens.tokenizer.backend_tokenizer
    state = json.loads(old.to_str())
    vocabulary = _vocabulary(state)
    vocabulary.always |= {tokens.begin, tokens.end}
    used = _uses(old, texts)
    kept = sorted(_chosen(vocabulary, used, size))
    place = {old_id: new_id for new_id, old_id in enumerate(kept)}
    new = Tokenizer.from_str(json.dumps(_renumbered(state, vocabulary, place)))
    return Tokens(_like(tokens.tokenizer, new), place[tokens.begin], place[tokens.end]), kept


def prune_embedding(embedding: nn.Embedding, head: nn.Linear | None, kept: Sequence[int]) -> None:
    """Leave the rows of kept tokens in an embedding (V, C) and in the head (V, C) over it, in place; ties hold."""
    index = torch.tensor(kept, device=embedding.weight.device)
    tied = head is not None and head.weight is embedding.weight
    embedding.weight = _rows(embedding.weight, index)
    embedding.num_embeddings = len(kept)
    if embedding.padding_idx is not None:
        embedding.padding_idx = kept.index(embedding.padding_idx) if embedding.padding_idx in kept else None
    if head is None:
        return
    head.weight = embedding.weight if tied else _rows(head.weight, index)
    head.out_features = len(kept)
    if head.bias is not None:
        head.bias = _rows(head.bias, index)


def _rows(parameter: Tensor, index: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().index_select(0, index), parameter.requires_grad)


def _uses(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[int]:
    """Return how often each token occurs in a corpus."""
    uses: Counter[int] = Counter()
    left = iter(texts)
    while batch := list(islice(left, BATCH)):
        for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
            uses.update(encoding.ids)
    return uses


class _Vocabulary(ABC):
    """The tokens of a tokenizer, and which of them need which."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        model = state["model"]
        self.ids: dict[str, int] = self._ids(model) | {token["content"]: token["id"] for token in state["added_tokens"]}
        self.names = {old_id: name for name, old_id in self.ids.items()}
        self.always = {token["id"] for token in state["added_tokens"]} | _in_processors(state)
        self.always |= {self.ids[name] for name in self._alphabet(state) if name in self.ids}

    @abstractmethod
    def _ids(self, model: Mapping[str, Any]) -> dict[str, int]:
        """Return the id of each token that is not added."""

    def _alphabet(self, state: Mapping[str, Any]) -> list[str]:
        """Return tokens with which any text can be written, some of which there may not be."""
        model = state["model"]
        alphabet = BYTES if model.get("byte_fallback") else []
        if _byte_level(state.get("pre_tokenizer")):
            alphabet = [*alphabet, *ByteLevel.alphabet()]
        return [*alphabet, *filter(None, [model.get("unk_token")])]

    def parts(self, token: int) -> set[int]:
        """Return the tokens without which a token cannot be made, itself among them."""
        return {token}

    def substitutes(self, token: int) -> set[int]:
        """Return the tokens that write what a token writes; itself where there are no others."""
        letters = {self.ids.get(letter) for letter in self.names[token]}
        return {token} if None in letters else {letter for letter in letters if letter is not None}

    @abstractmethod
    def pruned(self, model: dict[str, Any], place: Mapping[int, int]) -> dict[str, Any]:
        """Return the state of a model with the tokens of `place`, old id to new."""


class _Bpe(_Vocabulary):
    """Byte pair encoding: a token needs those that are merged into it."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        super().__init__(state)
        model = state["model"]
        self._prefix = model.get("continuing_subword_prefix") or ""
        self._suffix = model.get("end_of_word_suffix") or ""
        self._rank = {pair: rank for rank, pair in enumerate(_pairs(model["merges"]))}

    def _ids(self, model: Mapping[str, Any]) -> dict[str, int]:
        return dict(model["vocab"])

    def parts(self, token: int) -> set[int]:
        """Return the tokens that merges go through on the way to a token."""
        if token in self.always:
            return {token}
        names = {self.names[token]}
        word = self._letters(self.names[token])
        names |= {letter for letter in word if letter in self.ids}
        while ranked := [(self._rank[pair], at) for at, pair in enumerate(pairwise(word)) if pair in self._rank]:
            _, at = min(ranked)
            word[at : at + 2] = [self._merged(word[at], word[at + 1])]
            names.add(word[at])
        return {self.ids[name] for name in names}

    def _letters(self, name: str) -> list[str]:
        """Return what merges begin with, for a word or for the middle of one."""
        inside = bool(self._prefix) and name.startswith(self._prefix)
        ends = bool(self._suffix) and name.endswith(self._suffix)
        letters = [*name.removeprefix(self._prefix).removesuffix(self._suffix)]
        letters = [letter if at == 0 and not inside else self._prefix + letter for at, letter in enumerate(letters)]
        if ends and letters:
            letters[-1] += self._suffix
        return letters

    def _merged(self, left: str, right: str) -> str:
        return left + right.removeprefix(self._prefix)

    def substitutes(self, token: int) -> set[int]:
        """Return the tokens of a token's letters, or of its bytes."""
        letters = {self.ids.get(letter) for letter in self._letters(self.names[token])}
        return {token} if None in letters else {letter for letter in letters if letter is not None}

    def pruned(self, model: dict[str, Any], place: Mapping[int, int]) -> dict[str, Any]:
        """Return the state with the merges of kept tokens into kept tokens, in their order."""

        def stays(name: str) -> bool:
            return self.ids.get(name) in place

        merges = [[a, b] for a, b in self._rank if stays(a) and stays(b) and stays(self._merged(a, b))]
        vocabulary = {name: place[old_id] for name, old_id in model["vocab"].items() if old_id in place}
        return model | {"vocab": vocabulary, "merges": merges}


class _Unigram(_Vocabulary):
    """Pieces with scores, of which the likeliest sequence is taken."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        super().__init__(state)
        if state["model"]["unk_id"] is not None:
            self.always.add(state["model"]["unk_id"])

    def _ids(self, model: Mapping[str, Any]) -> dict[str, int]:
        return {piece: old_id for old_id, (piece, _) in enumerate(model["vocab"])}

    def pruned(self, model: dict[str, Any], place: Mapping[int, int]) -> dict[str, Any]:
        """Return the state with the pieces that are kept, and their scores."""
        pieces = [piece for old_id, piece in enumerate(model["vocab"]) if old_id in place]
        unknown = model["unk_id"]
        return model | {"vocab": pieces, "unk_id": None if unknown is None else place[unknown]}


class _WordLevel(_Vocabulary):
    """Whole words, for which nothing else can stand."""

    def _ids(self, model: Mapping[str, Any]) -> dict[str, int]:
        return dict(model["vocab"])

    def substitutes(self, token: int) -> set[int]:
        """Return the token."""
        return {token}

    def pruned(self, model: dict[str, Any], place: Mapping[int, int]) -> dict[str, Any]:
        """Return the state with the words that are kept."""
        return model | {"vocab": {name: place[old] for name, old in model["vocab"].items() if old in place}}


KINDS: dict[str, type[_Vocabulary]] = {"BPE": _Bpe, "Unigram": _Unigram, "WordLevel": _WordLevel}


def _vocabulary(state: Mapping[str, Any]) -> _Vocabulary:
    kind = state["model"]["type"]
    if kind not in KINDS:
        raise ValueError(f"the vocabulary of a {kind} tokenizer cannot be pruned; use one of {', '.join(KINDS)}")
    return KINDS[kind](state)


def _chosen(vocabulary: _Vocabulary, used: Counter[int], size: int) -> set[int]:
    """Return the ids of at most `size` tokens, with all that these need."""
    kept = set(vocabulary.always)
    for token in used:
        kept |= vocabulary.substitutes(token)
    if len(kept) > size:
        raise ValueError(f"the corpus cannot be written with {size} tokens; allow at least {len(kept)}")
    by_use = sorted(used, key=lambda token: (-used[token], token))
    for token in dict.fromkeys([*by_use, *sorted(vocabulary.names)]):
        parts = vocabulary.parts(token) - kept
        if len(kept) + len(parts) <= size:
            kept |= parts
        if len(kept) == size:
            break
    return kept


def _pairs(merges: Sequence[str | Sequence[str]]) -> Iterator[tuple[str, str]]:
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _byte_level(step: Mapping[str, Any] | None) -> bool:
    """Whether a pre-tokenizer turns texts into letters that stand for bytes."""
    if step is None:
        return False
    return step["type"] == "ByteLevel" or any(map(_byte_level, step.get("pretokenizers", [])))


def _processors(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield what is done after encoding, step by step."""
    if step is not None:
        yield step
        for inner in step.get("processors", []):
            yield from _processors(inner)


def _in_processors(state: Mapping[str, Any]) -> set[int]:
    """Return the ids that steps after encoding, and padding, put into sequences."""
    found = {state["padding"]["pad_id"]} if state.get("padding") else set()
    for step in _processors(state.get("post_processor")):
        found |= {old for token in step.get("special_tokens", {}).values() for old in token["ids"]}
        found |= {step[mark][1] for mark in ("sep", "cls") if mark in step}
    return found


def _renumbered(state: Mapping[str, Any], vocabulary: _Vocabulary, place: Mapping[int, int]) -> dict[str, Any]:
    """Return the state of a tokenizer with the tokens of `place`, old id to new."""
    new: dict[str, Any] = json.loads(json.dumps(state))
    new["model"] = vocabulary.pruned(new["model"], place)
    for token in new["added_tokens"]:
        token["id"] = place[token["id"]]
    if new.get("padding"):
        new["padding"]["pad_id"] = place[new["padding"]["pad_id"]]
    for step in _processors(new.get("post_processor")):
        for token in step.get("special_tokens", {}).values():
            token["ids"] = [place[old] for old in token["ids"]]
        for mark in ("sep", "cls"):
            if mark in step:
                step[mark][1] = place[step[mark][1]]
    return new


def _like(old: Any, new: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer of transformers with the marks and habits of another one."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=new,
        model_max_length=old.model_max_length,
        padding_side=old.padding_side,
        truncation_side=old.truncation_side,
        clean_up_tokenization_spaces=old.clean_up_tokenization_spaces,
        **old.special_tokens_map,
    )
    made.chat_template = old.chat_template
    return made

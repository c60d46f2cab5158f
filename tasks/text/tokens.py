"""Tokenizers: trained here or loaded, and texts as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

END, PAD, BEGIN = "</s>", "<pad>", "<s>"
FOLDER = "tokenizer"


@dataclass(frozen=True)
class Tokens:
    """A tokenizer with what marks the beginning, the end and padding."""

    tokenizer: Any
    begin: int
    end: int

    @classmethod
    def load(cls, source: str | Path) -> Tokens:
        """Read a tokenizer from the hub or a folder; `ValueError` where there is none, or it has no end token."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(source))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"tokenizer {source} cannot be loaded; name a folder written by save_pretrained, or a hub id that is "
                "cached or can be reached"
            ) from error
        if tokenizer.eos_token_id is None:
            raise ValueError(f"tokenizer {source} has no end-of-text token, so texts could not end; use another one")
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return cls(tokenizer, begin, tokenizer.eos_token_id)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without marks."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return found

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without marks."""
        found: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return found.strip()

    def encode(self, prompt: str, text: str, longest: int | None = None) -> tuple[list[int], int]:
        """Return the ids of begin, prompt, text and end, and how many of them come before the text.

        A text that, with its end, has more than `longest` tokens is cut; then it has no end.
        """
        head = [self.begin, *self.ids(prompt)]
        return [*head, *[*self.ids(f" {text}"), self.end][:longest]], len(head)


def train_tokenizer(texts: Iterable[str], vocabulary: int, folder: Path) -> None:
    """Train a byte-level BPE tokenizer (every UTF-8 text is reversible) and save it for `AutoTokenizer`."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits
    from tokenizers.pre_tokenizers import Sequence as Steps
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    # every digit is a token of its own: a number is then written place by place
    tokenizer.pre_tokenizer = Steps([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = Decoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PAD)
    fast.save_pretrained(str(folder))


def padded(rows: Sequence[Sequence[int]], fill: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows padded on the right as int64 (B, L), and which places hold a token, bool (B, L)."""
    import torch  # plans do without

    longest = max(map(len, rows))
    tokens = torch.full((len(rows), longest), fill, dtype=torch.int64)
    attended = torch.zeros(len(rows), longest, dtype=torch.bool)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = torch.tensor(row)
        attended[at, : len(row)] = True
    return tokens, attended

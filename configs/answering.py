"""Configuration of decoders that answer questions about images, of their training and of how they are judged."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from configs.ablation import Ablation, check_names, refuse_taken, with_ablations
from configs.base import Config
from configs.language import Adaptation, AutoLanguageConfig, LlamaLanguageConfig, Qwen2LanguageConfig
from configs.quantise import QuantiseRecipe
from configs.recursive import TrmConfig
from configs.training import TrainingConfig, check_groups

DecoderConfig = Annotated[
    TrmConfig | LlamaLanguageConfig | Qwen2LanguageConfig | AutoLanguageConfig, Field(discriminator="kind")
]


TAKEN = ("questions", "shards", "index", "store", "training_set", "evaluation")
"""What reports are given beside models."""


class AnswererDesign(Config):
    """What an answerer is: image tokens, a question and an answer, read by a decoder."""

    decoder: DecoderConfig
    """`trm`; a plain decoder (`llama` with `sizes`); or a pretrained one, which `adaptation` adapts."""
    adaptation: Adaptation | None = None
    """What of a pretrained decoder is trained; all of it when absent."""
    vision: bool = True
    """Whether it sees the image at all; one that does not is the blind baseline."""
    longest_question: int = Field(32, ge=4, le=1024)
    """Tokens of a question; longer ones lose their beginning, and are counted."""
    longest_answer: int = Field(32, ge=2, le=1024)
    """Tokens of an answer with its end; longer ones are cut, and counted."""

    @property
    def tokenizer_source(self) -> str | None:
        """Hub id or folder of the tokenizer, if it is not trained here."""
        source: str | None = getattr(self.decoder, "pretrained", None)
        return source


class AnswererRecipe(Config):
    """One decoder and how it is trained."""

    design: AnswererDesign
    """The model."""
    training: TrainingConfig | None = None
    """Optimisation, with the one parameter group `all`; that of all decoders when absent."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.training is not None:
            check_groups(self.training, "all")
        return self


class PackedAnswerer(Config):
    """A decoder, packed into few bits as it is."""

    decoder: str
    """Whose model, that of the first seed."""
    recipe: QuantiseRecipe
    """How. It names layers as in `language.trm.net.layers.0.mlp.down_proj` and `language.hf.model.layers.*`."""


class AnsweringRecipe(Config):
    """Decoders by name: baselines and recursive ones; each is trained with every seed."""

    vocabulary: int = Field(4096, ge=300, le=200_000)
    """Most tokens of the byte-level BPE tokenizer, trained on questions and answers; pretrained decoders have their
    own."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    """Of initial weights and order; one model each."""
    questions_at_once: int = Field(1, ge=1, le=64)
    """Most questions about an image that are learned from in one row of a batch: its tokens are read once for them all,
    and each is answered as if it were alone. A batch then has so many images, not questions."""
    halting_weight: float = Field(0.5, ge=0)
    """Factor of the halting loss, where a decoder learns to halt."""
    validation_questions: int = Field(1000, ge=8)
    """Most questions that an evaluation asks."""
    training: TrainingConfig
    """Optimisation of every decoder that has none of its own; the one parameter group is `all`."""
    decoders: Annotated[dict[str, AnswererRecipe], Field(min_length=1)]
    """By name."""
    ablations: dict[str, Ablation] = Field(default_factory=dict)
    """Further decoders, each a variation of one in `decoders`."""
    packed: dict[str, PackedAnswerer] = Field(default_factory=dict)
    """Models in few bits, by name."""

    def trainings(self) -> list[tuple[str, int, AnswererRecipe]]:
        """Return name, seed and recipe of every training, ablations resolved; each recipe has its `training`."""
        recipes = {
            name: decoder.model_copy(update={"training": decoder.training or self.training})
            for name, decoder in self.decoders.items()
        }
        return with_ablations(recipes, self.ablations, self.seeds)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_groups(self.training, "all")
        packed = {name: packed.decoder for name, packed in self.packed.items()}
        check_names(self.decoders, self.ablations, packed, "packed")
        trainings = self.trainings()  # refuses ablations that vary nothing
        refuse_taken(self.packed, [*TAKEN, *(f"{name}-{seed}" for name, seed, _ in trainings)], "packed")
        return self


class AnswerEvaluation(Config):
    """How answerers are judged, on the test split."""

    questions: int = Field(4000, ge=8)
    """Most questions."""
    max_new_tokens: int = Field(32, ge=1)
    """Longest answer."""
    depths: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = (1, 2, 4, 8, 16)
    """Steps after which a recursive decoder is asked for its answer, for the curve over depth."""
    resamples: int = Field(2000, ge=100)
    """Resamples of images for the 95 % intervals."""
    seed: int = Field(0, ge=0)
    """Of shuffling and of the intervals."""
    pictures: int = Field(6, ge=1, le=24)
    """Images that are shown with their questions and answers."""

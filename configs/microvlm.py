"""Configuration of the `microvlm` pipeline: image-text data, and the vision-language models that are made of it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from configs.ablation import refuse_taken
from configs.base import Config
from configs.image_text import ImageTextConfig
from configs.quantise import QuantiseRecipe
from configs.training import Execution, TrainingConfig, check_groups
from configs.vision_language import MicroVlmModelConfig

FROM_PREVIOUS = ("adapter", "alignment", "recall")
"""Groups that every stage may train; `vision` and `language` join where the stage says so."""
ALWAYS = ("nll", "recall", "alignment", "scope", "cue", "memory_kl", "address_kl")
"""Terms of every training; `fine`, `distil` and `relations` join where they are set."""


TAKEN = ("shards", "index", "sample", "evaluation")
"""What reports are given beside models."""


class CaptionTraining(Config):
    """A tokenizer and a language model are trained here, on the texts of the training split, without images."""

    vocabulary: int = Field(2048, ge=300, le=200_000)
    """Most tokens of the byte-level BPE tokenizer."""
    longest: int = Field(96, ge=16)
    """Tokens of a text, its prompt included; a longer one is cut."""
    training: TrainingConfig
    """Optimisation; the one parameter group is `all`."""

    @model_validator(mode="after")
    def _groups(self) -> Self:
        check_groups(self.training, "all")
        return self


class PrunedLanguage(Config):
    """A pretrained language model is made smaller before anything is trained."""

    vocabulary: int | None = Field(None, ge=300)
    """Most tokens that are left: those of bytes and marks, then those that training texts use most. Texts are written
    with fewer tokens to choose from, and stay the same."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers that are left, from 0, in their order. What the others did is to be learned again."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.vocabulary is None and self.layers is None:
            raise ValueError("nothing would be pruned; set vocabulary or layers")
        return self


class Phrases(Config):
    """What the model is asked."""

    describe: str = "Describe this image:"
    """Before a caption."""
    recall: tuple[str, ...] = Field(("What did image {number} show?", "What was in image {number}?"), min_length=1)
    """About an image that was seen before; {number} counts from 1."""
    previous: str = "What did the previous image show?"
    """About the last one but one, or, where none is shown, about the last one."""
    direct: tuple[str, ...] = Field(
        (
            "What do you see?", "What is in this picture?", "Which colours are there?", "What colour is the circle?",
            "How many things are there?", "What is on the left?", "What is on the right?", "What shape is it?",
            "Is there a square?", "Is it day or night?", "Who is that?", "What is the capital of France?",
        ),
        min_length=1,
    )  # fmt: skip
    """About the image that is shown, or about none at all: the memory has no answer to them."""


def check_pairs(field: str, samples: int, episode: int) -> None:
    """Refuse so few samples that an evaluation has no two episodes to compare."""
    if samples < 2 * episode:
        raise ValueError(f"{field} is {samples}, too few for two episodes of {episode}; give at least {2 * episode}")


class Weights(Config):
    """Factors of the terms of the loss."""

    nll: float = Field(1.0, ge=0)
    """Captions and answers with their image, nats per token."""
    recall: float = Field(1.0, ge=0)
    """Texts about images that only the memory has, nats per token."""
    alignment: float = Field(0.1, ge=0)
    """Images against texts of the batch."""
    fine: float = Field(0.1, ge=0)
    """Patches against words, where alignment.by_words is set."""
    scope: float = Field(0.1, ge=0)
    """Whether a question is about the memory."""
    cue: float = Field(0.1, ge=0)
    """Which image a question is about."""
    memory_kl: float = Field(0.01, ge=0)
    """Of the memory against its prior, nats per entry of the matrix."""
    distil: float = Field(1.0, ge=0)
    """The exact model's distributions against those of the one that trains quantised, nats per token."""
    relations: float = Field(0.0, ge=0)
    """Likewise how the last layer relates the tokens of a text to each other (MiniLM v2, arXiv 2012.15828), nats per
    token; 0 leaves it out."""
    address_kl: float = Field(0.001, ge=0)
    """Of addressing weights against theirs, nats per slot."""


class VlmStage(Config):
    """One stage of the training: what of the model is trained, and how."""

    vision: bool = False
    """Train the vision tower."""
    language_layers: int = Field(0, ge=0)
    """Last layers of the language model that are trained."""
    four_bit: bool = False
    """Hold the frozen layers of the language model as NF4."""
    quantise: QuantiseRecipe | None = None
    """Train quantised, to be packed afterwards; the model of the stage before is the teacher. It names layers as in
    `language.hf.model.layers.0.mlp.up_proj`, `vision.*` and `recall.tell`."""
    episode: int = Field(4, ge=2)
    """Images of an episode."""
    weights: Weights = Weights()
    """Of the terms of the loss."""
    longest: int = Field(64, ge=8)
    """Tokens of a text, its end included; longer ones are cut, and counted."""
    validation_samples: int = Field(256, ge=8)
    """Most samples that an evaluation looks at."""
    training: TrainingConfig
    """Optimisation; groups `adapter`, `alignment` and `recall`, and `vision` and `language` where they are trained."""

    def groups(self) -> tuple[str, ...]:
        """Return the parameter groups that are trained."""
        more = [*(["vision"] if self.vision else []), *(["language"] if self.language_layers else [])]
        return (*FROM_PREVIOUS, *more)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_groups(self.training, *self.groups())
        if self.training.batch_size % (self.episode * self.training.accumulation):
            raise ValueError(
                f"batch_size ({self.training.batch_size}) must be a multiple of episode x accumulation "
                f"({self.episode} x {self.training.accumulation}), so that episodes are whole"
            )
        if self.quantise and self.training.ema_decay is not None:
            raise ValueError("a moving average of weights that train quantised is not quantised; leave ema_decay out")
        check_pairs("validation_samples", self.validation_samples, self.episode)
        if self.four_bit and self.language_layers:
            raise ValueError("4-bit weights cannot be trained; set language_layers to 0, or four_bit to false")
        return self


class VlmEvaluation(Config):
    """How models are judged, on the test split."""

    samples: int = Field(512, ge=8)
    """Most texts whose likelihood is taken, and most images and texts that are retrieved among each other."""
    texts: int = Field(64, ge=1)
    """Images that are captioned."""
    max_new_tokens: int = Field(64, ge=4)
    """Longest caption."""
    longest: int = Field(64, ge=8)
    """Tokens of a listed text that are scored."""
    episode: int = Field(4, ge=2)
    """Images of an episode in which one is recalled."""
    resamples: int = Field(2000, ge=100)
    """Resamples of images for the 95 % intervals."""
    seed: int = Field(0, ge=0)
    """Of shuffling and of the intervals."""
    pictures: int = Field(6, ge=1, le=24)
    """Captions that are shown with their images."""

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        check_pairs("samples", self.samples, self.episode)
        return self


class VlmDesign(Config):
    """What a vision-language model is, however it is trained."""

    model: MicroVlmModelConfig = MicroVlmModelConfig()
    """Architecture."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer; that of the pretrained language model when absent."""
    phrases: Phrases = Phrases()
    """Prompts and questions."""

    @property
    def tokenizer_source(self) -> str | None:
        """Hub id or folder of the tokenizer, if it is not trained here."""
        return self.tokenizer or getattr(self.model.language, "pretrained", None)


class PackedModel(Config):
    """A model of some stage, packed into few bits."""

    stage: str
    """Name of the stage whose model it is."""
    recipe: QuantiseRecipe | None = None
    """How; that by which it trained when absent. A model that trained exact is quantised as it is."""


class VlmRecipe(Config):
    """A vision-language model and the stages of its training."""

    design: VlmDesign = VlmDesign()
    """The model."""
    text: CaptionTraining | None = None
    """Train tokenizer and language model here, from random weights."""
    prune: PrunedLanguage | None = None
    """Make the pretrained language model smaller."""
    stages: Annotated[dict[str, VlmStage], Field(min_length=1)]
    """In their order; each one goes on from the one before."""
    packed: dict[str, PackedModel] = Field(default_factory=dict)
    """Packed models by name."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        names = list(self.stages)
        for at, (name, stage) in enumerate(self.stages.items()):
            if stage.quantise and (at == 0 or at + 1 < len(names)):
                raise ValueError(
                    f"stages.{name} trains quantised, so it is the last of several: the one before it is its teacher, "
                    "and no stage can train exact after it"
                )
            trained = [other for other in names[:at] if self.stages[other].language_layers]
            if stage.four_bit and trained:
                raise ValueError(
                    f"stages.{name} holds the language model in 4 bits after {trained[0]} trained layers of it; put it "
                    "before, or set four_bit to false"
                )
        return self

    @model_validator(mode="after")
    def _parts(self) -> Self:
        tower, sizes = self.design.model.vision, getattr(self.design.model.language, "sizes", None)
        for name, stage in self.stages.items():
            if sizes and stage.language_layers > sizes.layers:
                raise ValueError(
                    f"stages.{name} trains the last {stage.language_layers} layers of a language model that has "
                    f"{sizes.layers}; lower language_layers"
                )
        if tower.pretrained is None and not any(stage.vision for stage in self.stages.values()):
            raise ValueError("the vision tower begins at random and no stage trains it; set vision in one of stages")
        return self

    @model_validator(mode="after")
    def _packed(self) -> Self:
        refuse_taken([*self.stages, *self.packed], TAKEN, "stages and packed")
        for name, packed in self.packed.items():
            if name in self.stages or packed.stage not in self.stages:
                raise ValueError(f"packed.{name} must have a name of its own, and name one of {', '.join(self.stages)}")
            if self.stages[packed.stage].four_bit:
                raise ValueError(
                    f"packed.{name}: stage {packed.stage} holds its language model in NF4, which is packed no further; "
                    "train it with four_bit false, or pack a later stage"
                )
            if (packed.recipe is None) == (self.stages[packed.stage].quantise is None):
                raise ValueError(
                    f"packed.{name}: give a recipe where stage {packed.stage} trains exact, and none where it trains "
                    "quantised, for that is how it is packed"
                )
        return self

    @model_validator(mode="after")
    def _source(self) -> Self:
        if (self.text is None) == (self.design.tokenizer_source is None):
            raise ValueError(
                "language model and tokenizer come from design.model.language.pretrained, or both are trained here by "
                "text: give one of the two (design.tokenizer names another tokenizer for a pretrained one)"
            )
        if self.text is None and getattr(self.design.model.language, "pretrained", None) is None:
            raise ValueError(
                "the language model begins at random and stages train its last layers at most; name a pretrained one "
                "in design.model.language.pretrained, or leave design.tokenizer out and set text"
            )
        if self.prune and self.text:
            raise ValueError("prune makes a pretrained language model smaller; lower text.vocabulary instead")
        return self


class MicroVlmConfig(ImageTextConfig):
    """Image URLs with captions to shards, and to a vision-language model with an episodic memory."""

    vlm: VlmRecipe | None = None
    """The model; none: the pipeline ends with the shards."""
    evaluation: VlmEvaluation = VlmEvaluation()
    """How it is judged."""
    execution: Execution = Execution()
    """How trainings are carried out."""

    @model_validator(mode="after")
    def _episodes(self) -> Self:
        if self.vlm is None:
            return self
        steps = self.vlm.design.model.recall.steps
        longest = max(self.evaluation.episode, *(stage.episode for stage in self.vlm.stages.values()))
        if longest > steps:
            raise ValueError(
                f"an episode has {longest} images and vlm.design.model.recall.steps tells {steps} apart; raise it"
            )
        for name, stage in self.vlm.stages.items():
            each = stage.episode * stage.training.accumulation
            if stage.training.batch_size % (each * self.execution.ranks):
                raise ValueError(
                    f"vlm.stages.{name}: batch_size ({stage.training.batch_size}) must be a multiple of episode x "
                    f"accumulation x execution.ranks ({each} x {self.execution.ranks}): a rank would leave images out"
                )
            if stage.validation_samples < 2 * stage.episode * self.execution.ranks:
                raise ValueError(
                    f"vlm.stages.{name}: validation_samples ({stage.validation_samples}) must have two episodes "
                    f"({2 * stage.episode}) for each of the {self.execution.ranks} ranks; raise it"
                )
        return self

"""Configuration of the `trm_vlm` pipeline: image-text data, an aligned image encoder, and decoders that answer."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from configs.alignment import AlignmentRecipe
from configs.answering import AnswerEvaluation, AnsweringRecipe
from configs.image_text import ImageTextConfig
from configs.training import Execution


class TrmVlmConfig(ImageTextConfig):
    """Image URLs with questions and answers to shards, to an encoder that is aligned with texts, and to answers."""

    alignment: AlignmentRecipe | None = None
    """The image encoder; none: the pipeline ends with the shards."""
    alignment_data: ImageTextConfig | None = None
    """Images and texts that the encoder is aligned on, e.g. PixMo captions; those of the questions when absent.
    `splits` must be those of the questions, so that an image which is in both is on one side."""
    answering: AnsweringRecipe | None = None
    """Decoders that answer questions; none: the pipeline ends with the encoder."""
    evaluation: AnswerEvaluation = AnswerEvaluation()
    """How they are judged."""
    execution: Execution = Execution()
    """How trainings are carried out."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.answering and not self.alignment:
            raise ValueError("decoders see through an image encoder; give alignment as well, or no answering")
        if self.alignment_data and not self.alignment:
            raise ValueError("alignment_data is for an image encoder; give alignment as well, or no alignment_data")
        if self.alignment_data and self.alignment_data.splits != self.splits:
            raise ValueError(
                "alignment_data.splits differ from splits, so the encoder may learn from images that the questions "
                f"keep for validation and test; set alignment_data.splits to {self.splits.model_dump()}"
            )
        return self

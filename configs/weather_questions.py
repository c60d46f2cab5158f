"""Configuration of questions about weather windows, and of the decoders that answer them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from configs.answering import AnswerEvaluation, AnsweringRecipe
from configs.base import Config

Tokens = Annotated[int, Field(ge=1, le=64)]


class WeatherQuestionRecipe(Config):
    """What is asked about windows, and how much decoders see of each."""

    per_window: int = Field(12, ge=1, le=64)
    """Most questions about a window, drawn from all that its fields answer clearly."""
    windows: int = Field(4000, ge=8)
    """Most windows of each split, evenly spaced."""
    tokens: tuple[Tokens, Tokens, Tokens] = (2, 4, 4)
    """Most tokens of a window in time, latitude and longitude; where the vision model has more, they are averaged."""
    seed: int = Field(0, ge=0)
    """Of which questions are asked, and in which words."""


class WeatherQuestions(Config):
    """Questions about windows, answered from their fields, and decoders that answer from what the vision model sees."""

    recipe: WeatherQuestionRecipe = WeatherQuestionRecipe()
    """The questions."""
    answering: AnsweringRecipe
    """The decoders."""
    evaluation: AnswerEvaluation = AnswerEvaluation()
    """How they are judged."""

"""What an answerer says of validation questions while it trains."""

from __future__ import annotations

import torch
from torch import nn

from models.vision_language.answerer import Answerer
from tasks.answering.objective import AnswerObjective
from tasks.answering.writing import Writing, answers
from tasks.figures import png_of, subplots

IN_KEY = False
"""The objective names this module without importing it: how things look shapes no weights."""
SHOWN = 12


def draw(objective: AnswerObjective, model: nn.Module) -> dict[str, bytes]:
    """Return a table of validation questions with the true answers and the model's."""
    assert isinstance(model, Answerer)
    source = objective.source("validation")
    places = [k * len(source) // SHOWN for k in range(min(SHOWN, len(source)))]
    device = next(model.parameters()).device
    features = torch.stack([source.sample(k, 0).features for k in places]).to(device)
    asked = [source.asked[k] for k in places]
    said = answers(model, objective.asking, features, [one.question for one in asked], Writing(16))
    figure, axis = subplots(figsize=(8, 0.3 * len(asked) + 0.6), layout="constrained")
    axis.set_axis_off()
    rows = [[one.question[:60], one.answer[:30], text[:30]] for one, text in zip(asked, said, strict=True)]
    axis.table(rows, colLabels=["question", "truth", "answer"], cellLoc="left", loc="center", colWidths=[0.6, 0.2, 0.2])
    return {"validation": png_of(figure)}

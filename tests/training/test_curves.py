"""What curves of a training show, and what is left to tables."""

from __future__ import annotations

from tasks.training.curves import draw_curves


def test_a_metric_that_was_evaluated_once_has_no_panel():
    training = [
        {"step": k, "loss": 1 / k, "terms": {"nll": 1 / k}, "learning_rates": {"all": 0.1}, "gradient_norm": 1.0}
        for k in (1, 2)
    ]
    evaluation = [{"step": 1, "epoch": 1, "nll": 0.5, "seen_once": 3.0}, {"step": 2, "epoch": 2, "nll": 0.4}]
    figure = draw_curves({"training": training, "evaluation": evaluation})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["training loss", "learning rate", "gradient norm", "nll"]

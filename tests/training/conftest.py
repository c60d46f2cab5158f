"""Fixtures of the training tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_curves():
    """Drawing takes longer than training here; the trainings in child processes draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.training.live.curves", lambda history, say: {})
        yield

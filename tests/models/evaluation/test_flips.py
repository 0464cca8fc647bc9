"""Which videos one method mends or breaks beside another."""

from __future__ import annotations

import numpy as np

from models.evaluation.figures import Predictions
from models.evaluation.flips import flips
from models.evaluation.methods import Case


def test_flips_of_independent_labels_count_videos():
    cases = [Case(name, (), name) for name in ("v", "w", "x")]
    truth = np.array([1, 0, 1, 1, 0, 0])

    def said(*guess):
        probs, each = np.full((6, 2), 0.5), np.array([0, 0, 1, 1, 2, 2])
        return Predictions(("a", "b"), probs, np.array(guess), truth, np.ones(6), each, each, np.array([0, 1] * 3))

    found = flips(said(1, 0, 0, 1, 1, 0), said(1, 1, 1, 1, 0, 1), cases)
    assert found == {"mended": ["w"], "broken": ["v"], "wrong otherwise": ["x"]}

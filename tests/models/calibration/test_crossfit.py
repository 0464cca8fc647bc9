"""Cross-fitting: nothing that is said of a row has seen it, and what cannot be learnt is seen not to be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from models.calibration import crossfit
from models.calibration.crossfit import Examples
from models.calibration.features import FeatureSpec
from models.calibration.probabilities import fit_temperature, nll
from models.evaluation.intervals import mean

LABELS = ("a", "b", "c")
SPEC = FeatureSpec(LABELS, 0)


def examples(rows: int, seed: int, honest: float = 1.0, independent: bool = False) -> Examples:
    """Rows whose first features tell the label with so much of a signal; two rows a cluster, five folds."""
    rng = np.random.default_rng(seed)
    applies = rng.random((rows, 3)) < 0.4 if independent else np.eye(3)[rng.integers(0, 3, rows)]
    features = rng.normal(size=(rows, len(SPEC.names)))
    features[:, :3] += 2 * honest * applies
    cluster = np.arange(rows) // 2
    targets = applies.astype(np.int64) if independent else applies.argmax(1)
    return Examples(features, targets, cluster % 5, cluster, np.arange(len(targets)))


@dataclass
class Memory:
    """Knows by heart what it was fitted on, and guesses a for the rest."""

    seen: Examples

    def logits(self, features: np.ndarray) -> np.ndarray:
        known = {row.tobytes(): target for row, target in zip(self.seen.features, self.seen.targets, strict=True)}
        return 9.0 * np.eye(3)[[known.get(row.tobytes(), 0) for row in features]]


def test_no_row_is_judged_by_what_has_seen_it():
    found = examples(60, 0)
    assert (Memory(found).logits(found.features).argmax(1) == found.targets).all()
    logits = crossfit.out_of_fold(found, Memory)
    assert (logits.argmax(1) == 0).all()


def test_temperatures_of_figures_come_from_the_other_folds():
    found = examples(60, 1)
    logits = np.random.default_rng(0).normal(size=(60, 3))
    rows = nll(crossfit.honest(logits, found, nll), found.targets)
    for fold in range(5):
        own = found.fold == fold
        temperature = fit_temperature(logits[~own], found.targets[~own])
        assert rows[own] == pytest.approx(nll(logits[own], found.targets[own], temperature))


@pytest.mark.parametrize("independent", [False, True])
def test_a_constant_guess_knows_how_often_labels_come_elsewhere(independent):
    found = examples(200, 2, independent=independent)
    rows = crossfit.constant_nll(found, 3)
    own = found.fold == 3
    applies = found.targets if independent else np.eye(3, dtype=int)[found.targets]
    if independent:
        share = (applies[~own].sum(0) + 1) / ((~own).sum() + 2)
        by_hand = -np.log(np.where(applies[own] == 1, share, 1 - share)).mean(1)
    else:
        share = (applies[~own].sum(0) + 1) / ((~own).sum() + 3)
        by_hand = -np.log(share[found.targets[own]])
    assert rows[own] == pytest.approx(by_hand)


@pytest.mark.parametrize("independent", [False, True])
def test_what_tells_beats_a_constant_guess_and_noise_does_not(independent):
    spec = FeatureSpec(LABELS, 0, independent)
    for honest, better in ((1.0, True), (0.0, False)):
        found = examples(300, 3, honest, independent)
        judged = crossfit.cross_fit(found, crossfit.linear(spec, 0.1), spec.labels)
        less = mean(judged.nll - crossfit.constant_nll(found, 3), found.cluster)
        assert (less.high < 0) == better, less
        assert judged.nll.mean() <= judged.before.mean() + 0.01


def test_with_one_fold_there_is_no_judgement():
    found = examples(20, 4)
    alone = replace(found, fold=np.zeros(20, dtype=np.int64))
    assert crossfit.cross_fit(alone, crossfit.linear(SPEC, 0.1), SPEC.labels) is None
    with pytest.raises(ValueError, match="two folds"):
        crossfit.out_of_fold(alone, Memory)

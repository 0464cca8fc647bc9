"""Prediction sets hold the right label as often as asked, on rows like those that their thresholds come from."""

import math

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from scipy.stats import binom
from sklearn.base import BaseEstimator, ClassifierMixin

from models.calibration.conformal import sets, strangeness, threshold, thresholds
from models.calibration.probabilities import softmax

SCHEMES = ("lac", "aps")
PROBS = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])


def drawn(rows: int, seed: int, labels: int = 4, trust: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are far too sure of themselves (`trust` times the honest logits), and right labels."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, labels)) * 1.5
    honest = softmax(logits)
    targets = (random.random(rows)[:, None] > honest.cumsum(1)).sum(1)
    return softmax(logits * trust), targets


def test_strangeness_is_what_a_label_lacks_or_the_mass_up_to_it():
    assert strangeness(PROBS, "lac") == pytest.approx(1 - PROBS)
    assert strangeness(PROBS, "aps") == pytest.approx(np.array([[0.5, 1.0, 0.8], [0.9, 1.0, 0.8]]))


def test_the_threshold_is_the_place_that_the_promise_needs():
    own = np.array([0.3, 0.1, 0.4, 0.2])
    assert threshold(own, 0.8) == 0.4  # the fourth of four: (4 + 1) x 0.8
    assert threshold(own, 0.6) == 0.3
    assert threshold(own, 0.81) == math.inf
    assert sets(PROBS, thresholds(PROBS[:1], np.array([0]), 0.9, "lac"), "lac").all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_coverage_is_inside_its_binomial_interval(scheme, coverage):
    """Over many draws of both parts: the share of rows whose set holds their label, however sure the probabilities are."""
    trials, rows, held = 400, 99, 0  # (99 + 1) x coverage is whole: exactly that coverage without ties
    for trial in range(trials):
        probs, targets = drawn(rows + 1, trial)
        found = sets(probs[-1:], thresholds(probs[:-1], targets[:-1], coverage, scheme), scheme)
        held += int(found[0, targets[-1]])
    # The label on top is always in, so sets may hold more than asked, never less.
    assert binom.cdf(held, trials, coverage) > 0.001
    if scheme == "lac":
        assert binom.sf(held - 1, trials, coverage) > 0.001


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_threshold_of_its_own_covers_a_label_that_the_common_one_fails(scheme):
    random = np.random.default_rng(0)
    probs, targets = drawn(20_000, 1, labels=2, trust=1.0)
    rare = (targets == 1) & (random.random(len(targets)) > 0.1)  # the second label is rare, and is held for rare
    probs, targets = probs[~rare] * [0.9, 0.1], targets[~rare]
    probs /= probs.sum(1, keepdims=True)
    half = len(targets) // 2

    def covered(per_label: bool) -> list[float]:
        found = sets(probs[half:], thresholds(probs[:half], targets[:half], 0.9, scheme, per_label), scheme)
        own = found[np.arange(len(found)), targets[half:]]
        return [own[targets[half:] == label].mean() for label in (0, 1)]

    assert covered(False)[1] < 0.85
    assert min(covered(True)) > 0.87


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_set_is_empty_and_none_of_much_asked_leaves_a_label_out(scheme):
    probs, targets = drawn(200, 5)
    assert sets(probs, thresholds(probs, targets, 0.01, scheme), scheme).any(1).all()
    assert sets(probs, thresholds(probs[:5], targets[:5], 0.99, scheme), scheme).all()


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities are its inputs."""

    def fit(self, inputs, targets):
        return self

    @property
    def classes_(self):
        return np.arange(4)

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, inputs):
        return inputs

    def predict(self, inputs):
        return inputs.argmax(1)


@pytest.mark.parametrize("coverage", [0.7, 0.8, 0.9])
def test_sets_are_those_of_another_library(coverage):
    """MAPIE 1.6's split conformal classifier, on probabilities that are given: the same sets, but for the label on top."""
    (probs, targets), (others, _) = drawn(499, 0), drawn(300, 1)
    theirs = SplitConformalClassifier(Given(), confidence_level=coverage, conformity_score="lac").conformalize(
        probs, targets
    )
    _, found = theirs.predict_set(others)
    ours = sets(others, thresholds(probs, targets, coverage, "lac"), "lac")
    expected = found[:, :, 0]
    expected[np.arange(300), others.argmax(1)] = True
    assert np.array_equal(ours, expected) and 1 < ours.sum(1).mean() < 3.5


class NoLot(np.random.RandomState):
    """MAPIE draws how much of the right label's own probability counts; ours, like APS without randomisation, counts all."""

    def uniform(self, low=0.0, high=1.0, size=None):
        return np.zeros(size)


@pytest.mark.parametrize("coverage", [0.7, 0.8, 0.9])
def test_adaptive_sets_are_those_of_another_library(coverage):
    (probs, targets), (others, _) = drawn(499, 0), drawn(300, 1)
    theirs = SplitConformalClassifier(
        Given(), confidence_level=coverage, conformity_score="aps", random_state=NoLot()
    ).conformalize(probs, targets)
    _, found = theirs.predict_set(others, conformity_score_params={"include_last_label": False})
    ours = sets(others, thresholds(probs, targets, coverage, "aps"), "aps")
    expected = found[:, :, 0]
    expected[np.arange(300), others.argmax(1)] = True
    assert np.array_equal(ours, expected)

"""Numbers of decision rules come from videos that taught nothing, and keep what they promise on others."""

import numpy as np
import pytest

from models.calibration.conformal import sets
from models.calibration.judged import Judged
from models.calibration.probabilities import softmax
from models.calibration.rules import conformal, for_precision

LABELS = ("b", "a", "c")


def judged_of(probs: np.ndarray, targets: np.ndarray, cluster: np.ndarray | None = None) -> Judged:
    rows = np.arange(len(targets))
    return Judged(probs, targets, rows if cluster is None else cluster, rows)


def drawn(rows: int, seed: int) -> Judged:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, 3)) * 2
    targets = (random.random(rows)[:, None] > softmax(logits).cumsum(1)).sum(1)
    return judged_of(softmax(logits * 2), targets)  # twice as sure as is right


def test_a_label_is_given_where_it_is_right_often_enough():
    found = for_precision(drawn(2000, 0), LABELS, 0.9)
    other = drawn(20_000, 1)
    for place, label in enumerate(LABELS):
        given = (other.probs.argmax(1) == place) & (other.probs[:, place] >= found[label])
        assert 0.9 < found[label] < 1  # where the probabilities say 0.9, less is right
        assert given.sum() > 500 and (other.targets[given] == place).mean() >= 0.895


def test_a_label_that_too_few_rows_speak_for_is_never_given():
    judged = drawn(2000, 0)
    few = judged.of(np.arange(12))
    assert set(for_precision(few, LABELS, 0.9).values()) == {2.0}
    none = for_precision(judged_of(np.empty((0, 3)), np.empty(0, np.int64)), LABELS, 0.5)
    assert none == dict.fromkeys(LABELS, 2.0)


def test_equal_probabilities_are_given_together_or_not_at_all():
    probs = np.tile([0.6, 0.3, 0.1], (100, 1))
    right = np.repeat([0, 1], [80, 20])  # the first eighty are right: of a hundred that look alike, eighty are
    judged = judged_of(probs, right)
    assert for_precision(judged, LABELS, 0.9)["b"] == 2.0
    assert for_precision(judged, LABELS, 0.7)["b"] == 0.6


def test_many_videos_of_few_sources_promise_no_more_than_so_many_videos():
    probs, right = np.tile([0.6, 0.3, 0.1], (200, 1)), np.zeros(200, np.int64)
    assert for_precision(judged_of(probs, right), LABELS, 0.9)["b"] == 0.6
    assert for_precision(judged_of(probs, right, np.arange(200) % 10), LABELS, 0.9)["b"] == 2.0


@pytest.mark.parametrize("scheme", ["lac", "aps"])
def test_conformal_numbers_cover_other_rows(scheme):
    up_to = conformal(drawn(3000, 2), LABELS, 0.9, scheme, True)
    other = drawn(20_000, 3)
    held = sets(other.probs, np.array([up_to[label] for label in LABELS]), scheme)
    own = held[np.arange(len(held)), other.targets]
    assert all(own[other.targets == place].mean() > 0.88 for place in range(3))
    assert held.mean() < 0.8


def test_what_was_judged_comes_back_from_its_bytes():
    judged = drawn(10, 4)
    again = Judged.unpacked(judged.packed())
    assert all((getattr(again, name) == value).all() for name, value in vars(judged).items())


def test_equal_probabilities_go_by_slug_in_sets_as_in_decisions():
    probs = np.tile([0.4, 0.4, 0.2], (99, 1))  # of b and a, a comes first: only b is as strange as 0.8
    of_a, of_b = (judged_of(probs, np.full(99, place)) for place in (1, 0))
    assert conformal(of_a, LABELS, 0.9, "aps", False)["a"] == pytest.approx(0.4)
    assert conformal(of_b, LABELS, 0.9, "aps", False)["a"] == pytest.approx(0.8)

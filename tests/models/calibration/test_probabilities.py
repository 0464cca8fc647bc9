"""Calibration: the temperature is found again, and the figures agree with sums done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.calibration.probabilities import (
    bin_of,
    expected_calibration_error,
    f1_by_label,
    fit_temperature,
    mean_binary_nll,
    mean_nll,
    sigmoid,
    softmax,
)


def drawn(temperature: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and targets drawn from softmax(logits / temperature)."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(rows, 3)) * 4
    cumulative = softmax(logits, temperature).cumsum(axis=1)
    return logits, (random.random((rows, 1)) > cumulative).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def drawn_apart(temperature: float, rows: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits of three labels, and for each on its own whether it applies, drawn from sigmoid(logits / temperature)."""
    random = np.random.default_rng(1)
    logits = random.normal(size=(rows, 3)) * 4
    return logits, (random.random((rows, 3)) < sigmoid(logits, temperature)).astype(np.int64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_of_independent_labels_is_recovered(temperature):
    assert fit_temperature(*drawn_apart(temperature), mean_binary_nll) == pytest.approx(temperature, rel=0.05)


def test_a_temperature_never_changes_which_independent_labels_are_likelier_than_not():
    logits, targets = drawn_apart(3.0, 200)
    scaled = sigmoid(logits, fit_temperature(logits, targets, mean_binary_nll))
    assert ((scaled > 0.5) == (logits > 0)).all()
    assert (np.argsort(scaled.ravel()) == np.argsort(logits.ravel())).all()


def test_binary_nll_by_hand_and_without_overflow():
    # sigmoid(ln 3) = 3/4
    logits = np.array([[math.log(3), 0.0], [math.log(3), 0.0]])
    assert mean_binary_nll(logits, np.array([[1, 1], [1, 0]])) == pytest.approx(
        -(2 * math.log(0.75) + 2 * math.log(0.5)) / 4
    )
    assert mean_binary_nll(np.array([[1e4, -1e4]]), np.array([[0, 0]])) == pytest.approx(5e3)
    assert sigmoid(np.array([1e4, -1e4, 0.0])).tolist() == [1.0, 0.0, 0.5]


def test_no_other_temperature_is_more_probable():
    logits, targets = drawn(2.0, 500)

    def loss(temperature: float) -> float:
        return 500 * mean_nll(logits, targets, temperature) + math.log(temperature) ** 2 / (2 * 0.5**2)

    best = loss(fit_temperature(logits, targets))
    assert all(loss(other) >= best - 1e-9 for other in np.geomspace(0.02, 50, 500))


def test_a_temperature_never_changes_the_most_probable_label():
    logits, targets = drawn(3.0, 200)
    scaled = softmax(logits, fit_temperature(logits, targets))
    assert (scaled.argmax(1) == logits.argmax(1)).all() and scaled.sum(1) == pytest.approx(1)


def test_few_rows_that_are_all_right_or_all_wrong_do_not_make_certain():
    logits = np.array([[1.0, 0.0, 0.0]] * 5)
    right, wrong = (fit_temperature(logits, np.full(5, label)) for label in (0, 1))
    assert 0.4 < right < 0.8 and 1.2 < wrong < 3
    assert softmax(logits, right)[0, 0] < 0.9
    many = np.repeat(logits, 400, axis=0)
    assert fit_temperature(many, np.zeros(2000, dtype=int)) < 0.2


def test_a_temperature_needs_rows_and_finite_logits():
    with pytest.raises(ValueError, match="found none"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, dtype=int))
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            fit_temperature(np.array([[0.0, bad]]), np.array([0]))


def test_mean_nll_by_hand_and_without_overflow():
    # softmax(ln 3, 0) = 3/4, 1/4
    assert mean_nll(np.array([[math.log(3), 0.0]] * 2), np.array([0, 1])) == pytest.approx(
        -(math.log(0.75) + math.log(0.25)) / 2
    )
    assert mean_nll(np.array([[1e4, 0.0]]), np.array([1])) == pytest.approx(1e4)
    assert softmax(np.array([[1e4, 0.0]])).tolist() == [[1.0, 0.0]]


def binned(rows: list[tuple[float, bool]]) -> dict[int, tuple[int, float, float]]:
    bins: dict[int, tuple[int, float, float]] = {}
    for confidence, right in rows:
        n, total, correct = bins.get(bin_of(confidence), (0, 0.0, 0.0))
        bins[bin_of(confidence)] = (n + 1, total + confidence, correct + right)
    return bins


def test_the_calibration_error_by_hand():
    assert expected_calibration_error(binned([(0.8, i < 6) for i in range(10)])) == pytest.approx(0.2)
    # Two bins: 4 rows of 0.9 of which 3 are right (off by 0.15), 6 of 0.5 of which 1 is (off by 1/3).
    rows = [(0.9, i < 3) for i in range(4)] + [(0.5, i < 1) for i in range(6)]
    assert expected_calibration_error(binned(rows)) == pytest.approx(0.4 * 0.15 + 0.6 * (0.5 - 1 / 6))


def test_errors_of_opposite_sign_cancel_within_a_bin_only():
    assert expected_calibration_error(binned([(0.5, True), (0.5, False)])) == 0
    assert expected_calibration_error(binned([(0.55, True), (0.45, False)])) == pytest.approx(0.45)


def test_certainty_belongs_to_the_last_bin_and_zero_to_the_first():
    assert (bin_of(1.0), bin_of(0.999), bin_of(0.0)) == (14, 14, 0)
    assert bin_of(1 / 15 - 1e-9) == 0 and bin_of(1 / 15 + 1e-9) == 1
    assert expected_calibration_error(binned([(1.0, True), (0.0, False)])) == 0
    assert expected_calibration_error(binned([(1.0, False), (0.0, True)])) == 1


def test_the_calibration_error_of_nothing_is_refused():
    for bins in ({}, {3: (0, 0.0, 0.0)}):
        with pytest.raises(ValueError, match="no rows"):
            expected_calibration_error(bins)


def test_f1_by_hand_with_an_unseen_label_and_rows_without_a_prediction():
    confusion = {("a", "a"): 3, ("a", "b"): 1, ("a", None): 2, ("b", "b"): 1, ("b", "a"): 1}
    # a: 2*3 / (6 true + 4 said), b: 2*1 / (2 true + 2 said); c never true nor said
    assert f1_by_label(confusion, ("a", "b", "c")) == {"a": pytest.approx(0.6), "b": pytest.approx(0.5), "c": 0.0}

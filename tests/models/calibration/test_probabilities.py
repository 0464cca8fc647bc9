"""Calibration: the temperature is found again, and the likelihoods agree with sums done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.calibration.probabilities import (
    binary_nll,
    fit_temperature,
    is_extreme,
    nll,
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
    assert fit_temperature(*drawn_apart(temperature), binary_nll) == pytest.approx(temperature, rel=0.05)


def test_a_temperature_never_changes_which_independent_labels_are_likelier_than_not():
    logits, targets = drawn_apart(3.0, 200)
    scaled = sigmoid(logits, fit_temperature(logits, targets, binary_nll))
    assert ((scaled > 0.5) == (logits > 0)).all()
    assert (np.argsort(scaled.ravel()) == np.argsort(logits.ravel())).all()


def test_binary_nll_by_hand_and_without_overflow():
    # sigmoid(ln 3) = 3/4
    logits = np.array([[math.log(3), 0.0], [math.log(3), 0.0]])
    assert binary_nll(logits, np.array([[1, 1], [1, 0]])).mean() == pytest.approx(
        -(2 * math.log(0.75) + 2 * math.log(0.5)) / 4
    )
    assert binary_nll(np.array([[1e4, -1e4]]), np.array([[0, 0]]))[0] == pytest.approx(5e3)
    assert sigmoid(np.array([1e4, -1e4, 0.0])).tolist() == [1.0, 0.0, 0.5]


def test_no_other_temperature_is_more_probable():
    logits, targets = drawn(2.0, 500)

    def loss(temperature: float) -> float:
        return nll(logits, targets, temperature).sum() + math.log(temperature) ** 2 / (2 * 0.5**2)

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
    assert nll(np.array([[math.log(3), 0.0]] * 2), np.array([0, 1])).mean() == pytest.approx(
        -(math.log(0.75) + math.log(0.25)) / 2
    )
    assert nll(np.array([[1e4, 0.0]]), np.array([1]))[0] == pytest.approx(1e4)
    assert softmax(np.array([[1e4, 0.0]])).tolist() == [[1.0, 0.0]]


def test_an_extreme_temperature_is_known():
    right = np.eye(3)[np.zeros(100_000, dtype=int)]
    assert is_extreme(fit_temperature(right, np.zeros(100_000, dtype=int)))
    assert not is_extreme(fit_temperature(*drawn(2.0, 500)))

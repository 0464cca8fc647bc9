"""Figures against scikit-learn and sums by hand; intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from models.evaluation.figures import (
    NOTHING,
    Predictions,
    area_under_risk,
    bins_of,
    calibration_error,
    chance_error,
    debiased_error,
    figures,
)
from models.evaluation.intervals import mean, report

LABELS = ("a", "b", "c")


def predictions(rows: int, seed: int, honest: bool = True, shift: float = 0.0) -> Predictions:
    """Probabilities of three labels, and truths drawn from them, or from flatter ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, 3))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    real = probs if honest else 0.5 * probs + 0.5 / 3
    truth = (rng.random((rows, 1)) > real.cumsum(1)[:, :2]).sum(1)
    guess = np.where(rng.random(rows) < shift, (truth + 1) % 3, probs.argmax(1))
    return Predictions(LABELS, probs, guess, truth, np.ones(rows), np.arange(rows), np.arange(rows))


def once(found: Predictions) -> dict[str, float]:
    return {name: float(values[0]) for name, values in figures(found, found.weight[None]).items()}


def test_figures_are_those_of_scikit_learn():
    found = predictions(500, 0, shift=0.1)
    ours = once(found)
    true = np.eye(3)[found.truth]
    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(found.truth, found.guess))
    assert ours["macro_f1"] == pytest.approx(metrics.f1_score(found.truth, found.guess, average="macro"))
    by_label = metrics.f1_score(found.truth, found.guess, average=None)
    assert [ours[f"f1/{label}"] for label in LABELS] == pytest.approx(list(by_label))
    assert ours["nll"] == pytest.approx(metrics.log_loss(found.truth, found.probs))
    assert ours["brier"] == pytest.approx(((found.probs - true) ** 2).sum(1).mean())
    assert ours["auroc"] == pytest.approx(metrics.roc_auc_score(found.right, found.confidence))


def test_weights_are_as_good_as_rows_that_come_again():
    found = predictions(80, 1, shift=0.2)
    times = np.random.default_rng(2).integers(0, 4, 80)
    again = np.repeat(np.arange(80), times)
    weighted = figures(found, times[None].astype(float))
    for name in ("accuracy", "nll", "brier", "macro_f1", "auroc"):
        parts = (found.probs, found.guess, found.truth, found.weight)
        twice = Predictions(LABELS, *(part[again] for part in parts), again, again)
        assert weighted[name][0] == pytest.approx(once(twice)[name]), name


def test_no_answer_is_wrong_and_ties_count_half():
    probs = np.array([[0.6, 0.2, 0.2], [0.6, 0.2, 0.2], [1 / 3] * 3])
    found = Predictions(
        LABELS, probs, np.array([0, 0, NOTHING]), np.array([0, 1, 2]), np.ones(3), np.arange(3), np.arange(3)
    )
    ours = once(found)
    assert (ours["accuracy"], ours["f1/c"]) == (pytest.approx(1 / 3), 0)
    assert ours["answered"] == pytest.approx(2 / 3)
    # Right: one of .6. Wrong: the other of .6 (a tie) and the one without an answer (less sure).
    assert ours["auroc"] == pytest.approx((0.5 + 1) / 2)
    right = Predictions(LABELS, probs[:1], np.array([0]), np.array([0]), np.ones(1), np.arange(1), np.arange(1))
    assert np.isnan(once(right)["auroc"])


def test_bins_hold_equally_many_rows_and_split_no_ties():
    assert bins_of(np.linspace(0, 1, 30), 15).tolist() == [place // 2 for place in range(30)]
    tied = bins_of(np.array([0.9] * 20 + [0.1, 0.2]), 4)
    assert len(set(tied[:20])) == 1 and tied[20] == 0
    right = np.array([1.0] * 6 + [0.0] * 4)
    assert calibration_error(np.full(10, 0.8), right, np.ones((1, 10)))[0] == pytest.approx(0.2)


def test_risk_is_averaged_over_coverages_and_ties_have_no_order():
    confidence, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
    assert area_under_risk(confidence, right, np.ones((1, 4)))[0] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    for order in ([0, 1, 2, 3], [3, 1, 2, 0]):
        assert area_under_risk(np.full(4, 0.5), right[order], np.ones((1, 4)))[0] == pytest.approx(0.5)


def test_of_a_perfectly_calibrated_model_the_error_is_that_of_chance_in_95_of_100_draws():
    inside = []
    for seed in range(400):
        found = predictions(120, seed)
        inside.append(once(found)["ece"] <= np.quantile(chance_error(found, 400, seed), 0.95))
    assert 0.92 <= np.mean(inside) <= 0.98
    over = predictions(1000, 0, honest=False)
    assert once(over)["ece"] > np.quantile(chance_error(over, 400, 0), 0.99)


def test_an_interval_holds_the_truth_in_about_95_of_100_draws():
    """The accuracy of these guesses in the long run, from 200 rows at a time."""
    truth = once(predictions(200_000, 0))["accuracy"]
    found = [report({"m": predictions(200, seed)}, draws=200).figures["m"]["accuracy"] for seed in range(1, 201)]
    assert 0.9 <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.99


def test_rows_of_one_source_are_drawn_together():
    """Ten copies of each video say no more than one of each."""
    one = predictions(100, 3)
    parts = (one.probs, one.guess, one.truth, one.weight, one.case, one.cluster)
    ten = Predictions(LABELS, *(np.repeat(part, 10, axis=0) for part in parts))
    apart = Predictions(LABELS, ten.probs, ten.guess, ten.truth, ten.weight, ten.case, np.arange(1000))
    wide, same, narrow = (report({"m": found}, draws=500).figures["m"]["accuracy"] for found in (one, ten, apart))
    assert same.high - same.low == pytest.approx(wide.high - wide.low, rel=1e-9)
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_a_difference_is_paired():
    """Given two methods that differ on few videos, then their difference is known far better than either."""
    one = predictions(300, 4)
    guess = one.guess.copy()
    guess[:9] = NOTHING
    other = Predictions(LABELS, one.probs, guess, one.truth, one.weight, one.case, one.cluster)
    found = report({"one": one, "other": other})
    (gain,) = [found.differences["other"]["accuracy"]]
    lost = (one.right[:9].sum()) / 300
    assert gain.value == pytest.approx(lost) and gain.low >= 0
    assert gain.high - gain.low < 0.6 * (found.figures["one"]["accuracy"].high - found.figures["one"]["accuracy"].low)


def test_calibration_errors_are_those_of_equal_mass_bins_in_scikit_learn():
    """Where nothing ties, scikit-learn's quantile bins hold the same rows."""
    found = predictions(15 * 40, 5, honest=False)
    share, mean_confidence = calibration_curve(found.right, found.confidence, n_bins=15, strategy="quantile")
    assert len(share) == 15
    assert once(found)["ece"] == pytest.approx(np.abs(share - mean_confidence).mean(), abs=2e-3)


def test_the_debiased_error_is_about_the_one_that_many_rows_show():
    """Given few rows, then the ECE is far above its value on many, of a calibrated method above all; the debiased one is
    not: of a calibrated method it is mostly 0."""
    for honest in (True, False):
        many = predictions(200_000, 6, honest=honest)
        whole = debiased_error(many.confidence, many.right, many.weight[None])[0]
        few = [once(predictions(300, seed, honest=honest)) for seed in range(60)]
        assert np.mean([one["ece"] for one in few]) > once(many)["ece"] + (0.05 if honest else 0.005)
        assert np.median([one["ece_debiased"] for one in few]) == pytest.approx(whole, abs=0.005)


def test_calibration_errors_have_no_interval_of_resamples():
    """Noise only adds to an absolute value: what is drawn again lies above."""
    found = report({"m": predictions(400, 6)}).figures["m"]
    assert all(np.isnan(found[name].low) for name in ("ece", "class_ece", "ece_debiased"))
    assert not np.isnan(found["nll"].low)


def test_a_planted_error_is_found_in_its_slice_and_nowhere_else():
    """Given a method that is wrong where a clip is of one kind, then the intervals of that slice alone say so."""
    found = predictions(900, 7)
    kind = np.arange(900) // 30 % 3  # 30 clips a source, each source of one kind
    guess = np.where(kind == 1, (found.truth + 1) % 3, found.guess)
    wrong = Predictions(LABELS, found.probs, guess, found.truth, found.weight, found.case, np.arange(900) // 30)
    by_kind = [report({"m": wrong.of(kind == value)}, draws=300).figures["m"]["accuracy"] for value in range(3)]
    assert by_kind[1].value == 0 and by_kind[1].high < 0.5 < min(by_kind[0].low, by_kind[2].low)
    whole = report({"m": wrong.of(kind != 1)}, draws=300).figures["m"]["accuracy"]
    assert all(one.low < whole.value < one.high for one in (by_kind[0], by_kind[2]))


def test_of_one_source_alone_nothing_tells_how_far_figures_move():
    found = predictions(30, 8)
    alone = Predictions(
        LABELS, found.probs, found.guess, found.truth, found.weight, found.case, np.zeros(30, dtype=int)
    )
    figure = report({"m": alone}).figures["m"]["accuracy"]
    assert np.isnan(figure.low) and str(figure).endswith("[unknown]") and figure.json()["high"] is None
    assert np.isnan(mean(found.right, alone.cluster).low)


def test_all_right_of_few_sources_is_not_certain():
    found = predictions(20, 10)
    perfect = Predictions(LABELS, found.probs, found.truth, found.truth, found.weight, found.case, np.arange(20) // 2)
    accuracy = report({"m": perfect}).figures["m"]["accuracy"]
    assert (accuracy.value, accuracy.high) == (1, 1)
    assert accuracy.low == pytest.approx(0.6915, abs=1e-4)  # of 10 of 10, by Clopper and Pearson
    wrong = Predictions(
        LABELS, found.probs, (found.truth + 1) % 3, found.truth, *(found.weight, found.case, found.case)
    )
    assert report({"m": wrong}).figures["m"]["accuracy"].high == pytest.approx(0.1684, abs=1e-4)  # of 0 of 20


def test_a_mean_has_the_interval_of_its_clusters():
    rng = np.random.default_rng(9)
    values = np.repeat(rng.normal(size=40), 5)
    by_cluster, by_row = mean(values, np.arange(200) // 5), mean(values, np.arange(200))
    error = values.std() / np.sqrt(40)
    assert by_cluster.high - by_cluster.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert by_row.high - by_row.low < 0.6 * (by_cluster.high - by_cluster.low)


def test_methods_that_speak_of_other_videos_are_not_compared():
    with pytest.raises(ValueError, match="few: expected predictions of the same 30 videos or sources as all"):
        report({"all": predictions(30, 0), "few": predictions(20, 0)})

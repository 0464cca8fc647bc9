"""The linear calibrator: fits, the same every time, and survives storage."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration.calibrator import load, manifest, probs, weights
from models.calibration.features import FeatureSpec
from models.calibration.linear import LinearCalibrator, fit_linear

SPEC = FeatureSpec(("a", "b", "c"), 0)
WIDTH = len(SPEC.names)


@pytest.fixture(scope="module")
def rows():
    """300 rows of three labels: the first three features say which, the others say nothing."""
    random = np.random.default_rng(0)
    targets = np.arange(300) % 3
    features = random.normal(size=(300, WIDTH))
    features[:, :3] += 4 * np.eye(3)[targets]
    features[:, -1] = 7.0  # never varies
    return features, targets


def fit(features: np.ndarray, targets: np.ndarray, l2: float = 0.01) -> LinearCalibrator:
    return fit_linear(SPEC, features, targets, l2)


def test_a_fit_separates_what_can_be_separated(rows):
    features, targets = rows
    assert (fit(*rows).logits(features).argmax(1) == targets).mean() > 0.97


def test_training_twice_gives_the_same_bytes(rows):
    first, second = fit(*rows), fit(*rows)
    assert weights(first) == weights(second)
    assert manifest(first, "r", 4)["calibrator_id"] == manifest(second, "r", 4)["calibrator_id"]


@pytest.mark.parametrize("independent", [False, True])
def test_rows_that_come_twice_change_nothing(rows, independent):
    """The loss is a mean over rows, so l2 weighs the same whatever their number."""
    features, targets = rows
    spec = FeatureSpec(SPEC.labels, 0, independent)
    targets = np.eye(3, dtype=np.int64)[targets] if independent else targets
    once, twice = (
        fit_linear(spec, *(np.tile(a, (n, 1)) if a.ndim > 1 else np.tile(a, n) for a in (features, targets)), 0.01)
        for n in (1, 2)
    )
    assert twice.weight == pytest.approx(once.weight, abs=1e-5) and twice.bias == pytest.approx(once.bias, abs=1e-5)


def test_the_fit_is_a_minimum_of_its_loss(rows):
    features, targets = rows
    fitted, l2 = fit(*rows, l2=0.1), 0.1

    def loss(weight: np.ndarray) -> float:
        logits = ((features - fitted.mean) / fitted.scale) @ weight.T + fitted.bias
        logits -= logits.max(1, keepdims=True)
        nll = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(targets)), targets]
        return float(nll.mean() + l2 * (weight**2).sum())

    best = loss(fitted.weight)
    random = np.random.default_rng(1)
    assert all(loss(fitted.weight + 0.05 * random.normal(size=fitted.weight.shape)) > best for _ in range(20))


def test_more_l2_gives_smaller_weights(rows):
    sizes = [float((fit(*rows, l2=l2).weight ** 2).sum()) for l2 in (0.001, 0.1, 10.0)]
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]


def test_features_are_scaled_so_that_their_unit_does_not_matter(rows):
    features, targets = rows
    units = np.geomspace(1e-3, 1e3, WIDTH)
    assert fit(features * units, targets).logits(features * units) == pytest.approx(
        fit(features, targets).logits(features), abs=1e-4
    )


def test_features_are_centred_so_that_their_origin_does_not_matter(rows):
    """In training and in scoring alike: the features of this fixture are nearly centred by themselves."""
    features, targets = rows
    origin = np.linspace(-50.0, 50.0, WIDTH)
    assert fit(features + origin, targets).logits(features + origin) == pytest.approx(
        fit(features, targets).logits(features), abs=1e-4
    )


def test_a_feature_that_never_varies_is_harmless(rows):
    fitted = fit(*rows)
    assert fitted.scale[-1] == 1.0 and np.isfinite(fitted.logits(rows[0])).all()


TRACES = [
    {
        "rollout_index": 0,
        "status": "ok",
        "labels": ["b"],
        "observation": "1 2",
        "think": "so b",
        "label_logprobs": {"a": -3.0, "b": -0.1, "c": -4.0},
        "logprob_sum": -2.0,
        "tokens": 5,
    }
]


def test_what_is_loaded_gives_the_same_probabilities(rows):
    raw = fit(*rows)
    saved = LinearCalibrator(raw.spec, raw.mean, raw.scale, raw.weight, raw.bias, temperature=1.7)
    loaded = load(manifest(saved, "r", 4), weights(saved))
    assert probs(loaded, TRACES) == probs(saved, TRACES) != probs(raw, TRACES)
    assert list(probs(loaded, TRACES)) == ["a", "b", "c"] and sum(probs(loaded, TRACES).values()) == pytest.approx(1)


def test_weights_and_temperature_have_digests_of_their_own(rows):
    raw = fit(*rows)
    warm = LinearCalibrator(raw.spec, raw.mean, raw.scale, raw.weight, raw.bias, temperature=2.0)
    other = LinearCalibrator(raw.spec, raw.mean, raw.scale, raw.weight, raw.bias + 1)
    digests = [manifest(each, "r", 4) for each in (raw, warm, other)]
    assert digests[0]["calibrator"] == digests[1]["calibrator"] != digests[2]["calibrator"]
    assert digests[0]["calibration"] == digests[2]["calibration"] != digests[1]["calibration"]
    assert len({each["calibrator_id"] for each in digests}) == 3


def test_a_calibrator_keeps_to_the_rule_that_it_learned_from(rows):
    """Given a rule in the task's file, when its code changes, then a calibrator that learned from the other one says so."""
    spec = FeatureSpec(SPEC.labels, 0, rule="models.handwriting.rule:label_argued")
    size = len(spec.names)
    made = LinearCalibrator(spec, np.zeros(size), np.ones(size), np.ones((3, size)), np.zeros(3))
    known = manifest(made, "r", 4)
    assert load(known, weights(made)).spec == spec
    with pytest.raises(
        ValueError, match=r"rule models\.handwriting\.rule:label_argued has changed since this calibrator"
    ):
        load(known | {"rule_code": "0" * 16}, weights(made))
    with pytest.raises(ValueError, match=r"expected module:function that can be imported, found .no\.such:rule"):
        load(known | {"rule": "no.such:rule"}, weights(made))
    assert (
        known["calibrator_id"]
        != manifest(LinearCalibrator(SPEC, *(np.zeros(1),) * 2, np.ones((3, 1)), np.zeros(3)), "r", 4)["calibrator_id"]
    )


def test_an_unknown_kind_is_refused(rows):
    raw = fit(*rows)
    with pytest.raises(ValueError, match="expected adaptive, both, linear, text, vlm or vote, found 'tree'"):
        load(manifest(raw, "r", 4) | {"kind": "tree"}, weights(raw))


FREE = FeatureSpec(("a", "b", "c"), 0, independent=True)


@pytest.fixture(scope="module")
def free_rows():
    """400 rows of three labels that apply or not on their own, each with one feature that says so."""
    random = np.random.default_rng(2)
    targets = (random.random((400, 3)) < (0.5, 0.2, 0.7)).astype(np.int64)
    features = random.normal(size=(400, WIDTH))
    features[:, :3] += 5 * targets
    return features, targets


def fit_free(features: np.ndarray, targets: np.ndarray, spec: FeatureSpec = FREE) -> LinearCalibrator:
    return fit_linear(spec, features, targets, 0.01)


def test_independent_labels_are_separated_each_on_its_own(free_rows):
    features, targets = free_rows
    assert (((fit_free(*free_rows).logits(features) > 0) == targets).mean(0) > 0.97).all()
    assert targets.sum(1).min() == 0 and targets.sum(1).max() == 3


def test_what_another_independent_label_is_changes_nothing_for_this_one(free_rows):
    features, targets = free_rows
    turned = targets.copy()
    turned[:, 2] = 1 - turned[:, 2]
    first, second = fit_free(features, targets), fit_free(features, turned)
    assert second.weight[:2] == pytest.approx(first.weight[:2], abs=1e-4)
    assert second.weight[2] == pytest.approx(-first.weight[2], abs=1e-4)


def test_one_independent_label_alone_is_logistic_regression(free_rows):
    features, targets = free_rows
    alone = FeatureSpec(("a",), 0, independent=True)
    width = len(alone.names)
    fitted = fit_free(features[:, :width], targets[:, :1], alone)
    assert ((fitted.logits(features[:, :width]) > 0) == targets[:, :1]).mean() > 0.97
    assert set(probs(fitted, [TRACES[0] | {"label_logprobs": {"a": -1.0}, "labels": []}])) == {"a"}


def test_a_calibrator_of_independent_labels_is_loaded_as_one(free_rows):
    saved = fit_free(*free_rows)
    loaded = load(manifest(saved, "r", 4), weights(saved))
    assert loaded.spec == FREE and manifest(saved, "r", 4)["mode"] == "independent"
    assert probs(loaded, TRACES) == probs(saved, TRACES)
    assert abs(sum(probs(loaded, TRACES).values()) - 1) > 1e-3


def test_the_mode_is_no_part_of_what_names_an_exclusive_calibrator():
    """Names given out earlier stay; the same weights for independent labels are another calibrator."""
    ones = np.ones(WIDTH)
    exclusive, free = (LinearCalibrator(spec, ones, ones, np.ones((3, WIDTH)), np.ones(3)) for spec in (SPEC, FREE))
    assert manifest(exclusive, "r", 4)["calibrator"] == "cdf50dc2ab27be0e" != manifest(free, "r", 4)["calibrator"]
    assert "mode" not in manifest(exclusive, "r", 4)

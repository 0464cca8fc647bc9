"""Labels with few rows: stand-ins make a calibrator believe the traces there, and go where there is enough to learn from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.calibration.calibrator import probs as probs_of
from models.calibration.calibrator import weights
from models.calibration.features import FeatureSpec, vector
from models.calibration.linear import LinearCalibrator, fit_linear
from models.calibration.rare import ENOUGH, StandIns, stand_ins

LABELS = ("a", "b", "c")
EXCLUSIVE, FREE = FeatureSpec(LABELS, 32), FeatureSpec(LABELS, 32, independent=True)


def trace(index: int, named: tuple[str, ...], sure: float, spec: FeatureSpec) -> dict:
    """A trace that names labels, with so much probability on each of them."""
    low = 1 - sure if spec.independent else (1 - sure) / 2
    return {
        "rollout_index": index,
        "status": "ok",
        "labels": list(named),
        "observation": f"frame {index}",
        "think": f"so {' '.join(named)}",
        "label_logprobs": {label: math.log(sure if label in named else low) for label in LABELS},
        "logprob_sum": -2.0 - index,
        "tokens": 20 + index,
    }


def video(named: tuple[str, ...], spec: FeatureSpec, sure: float = 0.8) -> list[dict]:
    return [trace(index, named, sure, spec) for index in range(4)]


def rows(spec: FeatureSpec, truths: list[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets of videos of which one trace in ten names something else."""
    rng = np.random.default_rng(0)
    features = []
    for truth in truths:
        said = [("a",) if rng.random() < 0.1 else truth for _ in range(4)]
        features.append(vector([trace(i, named, rng.uniform(0.6, 0.95), spec) for i, named in enumerate(said)], spec))
    applies = np.array([[label in truth for label in LABELS] for truth in truths], dtype=np.int64)
    return np.array(features), applies if spec.independent else applies.argmax(1)


def found(spec: FeatureSpec, features: np.ndarray, targets: np.ndarray) -> tuple[StandIns, LinearCalibrator]:
    rare = stand_ins(spec, features, targets)
    return rare, fit_linear(spec, *rare.beside(features, targets), 0.1)


@pytest.mark.parametrize("count", [20, 300, 2000])
@pytest.mark.parametrize("few", [0, 2])
def test_a_video_whose_traces_all_name_a_rare_label_has_it(count, few):
    rare, fitted = found(EXCLUSIVE, *rows(EXCLUSIVE, [("a",), ("b",)] * (count // 2) + [("c",)] * few))
    assert rare.having == {"c": few} and rare.lacking == {}
    probs = probs_of(fitted, video(("c",), EXCLUSIVE))
    assert max(probs, key=probs.get) == "c" and probs["c"] > 0.5, probs
    probs = probs_of(fitted, video(("b",), EXCLUSIVE))
    assert max(probs, key=probs.get) == "b", probs


def test_labels_with_enough_rows_are_learnt_from_them_alone():
    """Not a bit of the weights changes."""
    features, targets = rows(EXCLUSIVE, [("a",), ("b",)] * 20 + [("c",)] * ENOUGH)
    rare, _ = found(EXCLUSIVE, features, targets)
    assert (rare.having, rare.lacking, len(rare.targets), len(rare.features)) == ({}, {}, 0, 0)
    plain = fit_linear(EXCLUSIVE, features, targets, 0.1)
    assert weights(found(EXCLUSIVE, features, targets)[1]) == weights(plain)
    assert len(found(EXCLUSIVE, features[:-1], targets[:-1])[0].targets) == 1


def test_an_independent_label_that_no_video_has_or_every_video_has_follows_its_traces():
    """b is never true, c always. Where the traces say otherwise, all of them, the rule leaves it to people at least."""
    rare, fitted = found(FREE, *rows(FREE, [("a", "c"), ("c",)] * 100))
    assert (rare.having, rare.lacking, rare.weights.tolist()) == ({"b": 0}, {"c": 0}, [10, 6])
    assert rare.targets.tolist() == [[0, 1, 0], [0, 0, 0]]
    usual, other = probs_of(fitted, video(("c",), FREE, 0.95)), probs_of(fitted, video(("b",), FREE, 0.95))
    assert usual["b"] < 0.05 and usual["c"] > 0.95
    assert other["b"] > 0.4 and other["c"] < 0.6


@pytest.mark.parametrize("spec", [EXCLUSIVE, FREE], ids=["exclusive", "independent"])
def test_without_any_row_the_traces_are_believed(spec):
    rare, fitted = found(
        spec, np.zeros((0, len(spec.names))), np.zeros((0, 3) if spec.independent else 0, dtype=np.int64)
    )
    assert rare.having == dict.fromkeys(LABELS, 0)
    for label in LABELS:
        probs = probs_of(fitted, video((label,), spec))
        assert max(probs, key=probs.get) == label and probs[label] > 0.5
    assert max(probs_of(fitted, video((), spec)).values()) < 0.5 or not spec.independent


def test_a_stand_in_is_like_the_others_in_what_says_nothing_of_labels():
    features, targets = rows(EXCLUSIVE, [("a",), ("b",)] * 20)
    rare, _ = found(EXCLUSIVE, features, targets)
    style = [n for n, name in enumerate(EXCLUSIVE.names) if name.startswith(("token", "word"))]
    assert len(style) == 36 and rare.features[0, style] == pytest.approx(features.mean(0)[style])
    one = dict(zip(EXCLUSIVE.names, rare.features[0], strict=True))
    assert (one["votes/c"], one["votes/a"], one["agreement"], one["status/ok"]) == (1, 0, 1, 1)
    assert one["prob/c"] == pytest.approx(0.8)


def test_stand_ins_come_after_the_rows_as_often_as_they_weigh():
    features, targets = rows(EXCLUSIVE, [("a",), ("b",)] * 10)
    many = StandIns(features[:2], targets[:2], np.array([3, 2]), {}, {})
    together, labels = many.beside(features, targets)
    assert (together[:20] == features).all() and labels.tolist() == [*targets, 0, 0, 0, 1, 1]
    assert (together[20:23] == features[0]).all() and (together[23:] == features[1]).all()


def test_what_traces_named_and_was_refuted_is_evidence_too():
    """Given a label that no video has, when 40 of 2,000 are called it all the same, then the next is not believed either."""
    features, targets = rows(EXCLUSIVE, [("a",), ("b",)] * 980 + [("c",)] * 40)
    targets[-40:] = 0
    rare, fitted = found(EXCLUSIVE, features, targets)
    assert rare.having == {"c": 0} and rare.weights.tolist() == [0]
    assert probs_of(fitted, video(("c",), EXCLUSIVE))["c"] < 0.1
    rare, _ = found(EXCLUSIVE, *rows(EXCLUSIVE, [("a",), ("b",)] * 980))
    assert rare.weights.tolist() == [98]


def test_many_rare_labels_do_not_outweigh_the_rows():
    spec = FeatureSpec(tuple(f"label{number:02d}" for number in range(40)), hashed_words=0)
    features = np.zeros((4000, len(spec.names)))
    rare = stand_ins(spec, features, np.arange(4000) % 3)
    assert len(rare.features) == 37 and 900 < rare.weights.sum() <= 1000

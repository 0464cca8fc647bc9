"""The tempered vote: counts by hand, and what it does with traces that have no answer."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from models.calibration.calibrator import load, manifest, probs, weights
from models.calibration.features import FeatureSpec
from models.calibration.vote import VoteCalibrator

LABELS = ("a", "b", "c")


def trace(*labels, status="ok"):
    return {
        "status": status,
        "labels": list(labels) if status == "ok" else None,
        "observation": None,
        "think": None,
    } | {
        "rollout_index": 0,
        "label_logprobs": None,
        "logprob_sum": -1.0,
        "tokens": 3,
    }


def test_half_a_vote_is_added_to_each_label():
    vote = VoteCalibrator(FeatureSpec(LABELS, 0), 4)
    found = probs(vote, [trace("a"), trace("a"), trace("b"), trace(status="parse_error")])
    assert found == pytest.approx({"a": 2.5 / 4.5, "b": 1.5 / 4.5, "c": 0.5 / 4.5})
    assert probs(vote, [trace(status="too_long")] * 4) == pytest.approx(dict.fromkeys(LABELS, 1 / 3))


def test_temperature_makes_it_more_or_less_sure_and_never_another_answer():
    traces = [trace("a"), trace("a"), trace("b"), trace("a")]
    cold, warm = (probs(VoteCalibrator(FeatureSpec(LABELS, 0), 4, t), traces)["a"] for t in (0.5, 3.0))
    assert cold == pytest.approx(3.5**2 / (3.5**2 + 1.5**2 + 0.5**2)) and 1 / 3 < warm < cold


def test_of_independent_labels_usable_traces_vote_for_and_against():
    vote = VoteCalibrator(FeatureSpec(LABELS, 0, independent=True), 4)
    found = probs(vote, [trace("a", "b"), trace("a"), trace(), trace(status="parse_error")])
    assert found == pytest.approx({"a": 2.5 / 4, "b": 1.5 / 4, "c": 0.5 / 4})


@pytest.mark.parametrize("independent", [False, True])
def test_what_is_loaded_says_the_same(independent):
    vote = VoteCalibrator(FeatureSpec(LABELS, 0, independent), 4, 1.7)
    loaded = load(manifest(vote, "r", 4), weights(vote))
    assert loaded == vote and manifest(loaded, "r", 4)["kind"] == "vote"
    assert manifest(vote, "r", 4)["calibrator_id"] != manifest(vote, "s", 4)["calibrator_id"]  # over other traces
    other = [
        manifest(VoteCalibrator(FeatureSpec(LABELS, 0, independent), k, t), "r", k) for k, t in ((4, 1.0), (8, 1.7))
    ]
    assert len({one["calibrator_id"] for one in (*other, manifest(vote, "r", 4))}) == 3
    assert other[0]["calibrator"] == manifest(vote, "r", 4)["calibrator"] != other[1]["calibrator"]


def test_it_reads_the_features_that_every_spec_begins_with():
    traces = [trace("a"), trace("b"), trace("b"), trace(status="parse_error")]
    from models.calibration.features import vector

    vote = VoteCalibrator(FeatureSpec(LABELS, 0), 4)
    wide = vector(traces, FeatureSpec(LABELS, 16))[None]
    assert vote.logits(wide)[0] == pytest.approx(np.log([1.5, 2.5, 0.5])) and log(2.5) > log(1.5)

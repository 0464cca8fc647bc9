"""What speaks for a candidate and what against it."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration import crossfit
from models.calibration.crossfit import Examples
from models.calibration.features import FeatureSpec
from models.calibration.worth import Worth, doubt, parse, worth
from models.evaluation.intervals import Interval

BETTER, EQUAL = Interval(-0.1, -0.2, -0.01), Interval(-0.1, -0.2, 0.0)
UNKNOWN = Interval(-0.1, float("nan"), float("nan"))


def known(constant: Interval, vote: Interval | None) -> Worth:
    return Worth(0.5, 0.6, 0.8, 1.2, constant, vote)


@pytest.mark.parametrize(
    ("kind", "found", "why"),
    [
        ("linear", known(BETTER, BETTER), ""),
        ("linear", known(BETTER, EQUAL), "tempered vote"),
        ("linear", known(EQUAL, BETTER), "constant guess"),
        ("linear", known(UNKNOWN, UNKNOWN), "constant guess"),
        ("linear", None, "too few videos"),
        ("vote", known(EQUAL, None), "constant guess"),
        ("vote", known(BETTER, None), ""),
        ("vote", None, ""),
    ],
)
def test_what_speaks_against_a_candidate(kind, found, why):
    said = doubt(kind, found)
    assert why in said and bool(said) == bool(why)


def test_a_manifest_tells_all_of_it():
    for found in (known(BETTER, EQUAL), known(EQUAL, None)):
        assert parse(found.json()) == found
    again = parse(known(UNKNOWN, None).json())
    assert again.minus_constant.value == -0.1 and np.isnan(again.minus_constant.high)


@pytest.mark.parametrize("clusters", [3, 12])
def test_what_is_worth_nothing_rarely_passes_the_gate_however_few_sources_there_are(clusters):
    """Given votes that say nothing of the labels and a calibrator that only adds noise, then the gate holds 39 of 40."""
    rng, passed = np.random.default_rng(0), 0
    spec = FeatureSpec(("a", "b"), 0)
    for _ in range(200):
        each = np.repeat(rng.normal(size=clusters), 10)  # what a source has in common
        cluster = np.arange(10 * clusters) // 10
        features, targets = np.zeros((10 * clusters, len(spec.names))), (each > 0).astype(int)
        examples = Examples(features, targets, cluster % 3, cluster, np.arange(10 * clusters))
        vote = crossfit.HeldOut(
            1.0, np.ones(10 * clusters), np.ones(10 * clusters), each > 0, np.empty((10 * clusters, 2))
        )
        noise = np.repeat(rng.normal(size=clusters), 10)
        own = crossfit.HeldOut(1.0, vote.nll, vote.nll + noise, each > 0, vote.probs)
        passed += worth(own, vote, examples, 2).beats_vote
    assert passed / 200 <= 0.06

"""Decisions over independent labels: what applies, what is ruled out, what is left to people."""

from __future__ import annotations

from datetime import date
from itertools import product

import pytest

from jobs.steps.deciding import decide
from schemas.label_set import LabelSet

LABELS = LabelSet(("c", "a", "b"), "independent")
THRESHOLDS = (0.5, 0.6, 0.93, 1.0)
VALUES = (0.0, 0.07, 0.4, 0.5, 0.6, 0.9, 1.0)


@pytest.fixture(scope="module")
def decided(spark):
    """{(threshold, probabilities, usable traces): decision} of all triples of VALUES."""
    rows = [(*map(str, p), {"a": p[0], "b": p[1], "c": p[2]}) for p in product(VALUES, repeat=3)]
    scores = [(" ".join(row[:3]), "t", "s", row[3], ok, date(2026, 3, 1)) for row in rows for ok in (0, 4)]
    kinds = (
        "video_id string, task string, scorer_id string, probs map<string,double>, rollouts_ok int, ingested_on date"
    )
    frame = spark.createDataFrame([(f"{row[0]} {row[4]}", *row[1:]) for row in scores], kinds)
    frame = frame.selectExpr("*", "'0' AS input_digest")
    found = {}
    for threshold in THRESHOLDS:
        for row in decide(frame, {"threshold": threshold, "coverage": 0.9}, "rule", LABELS).collect():
            *probs, ok = row["video_id"].split()
            found[threshold, tuple(map(float, probs)), int(ok)] = row.asDict()
    return found


def test_a_label_applies_from_the_threshold_on_and_is_ruled_out_as_far_down(decided):
    """A threshold that is reached exactly is reached on either side: 1 - 0.07 falls short of 0.93 in binary."""
    exact = {0.5: (50, 50), 0.6: (60, 40), 0.93: (93, 7), 1.0: (100, 0)}
    for (threshold, probs, ok), row in decided.items():
        high, low = exact[threshold]
        percent = {slug: round(100 * p) for slug, p in zip("abc", probs, strict=True)}
        applies = [slug for slug in LABELS.slugs if percent[slug] >= high]
        possible = {slug for slug, p in percent.items() if p > low or p >= high}
        uncertain = possible - set(applies)
        assert row["abstain"] == (bool(uncertain) or not ok)
        assert row["labels"] == (None if row["abstain"] else applies)
        assert set(row["prediction_set"]) == possible and row["label"] is None


def test_the_set_and_the_queue_are_in_the_order_of_probability(decided):
    for (threshold, probs, ok), row in decided.items():
        by_slug = dict(zip("abc", probs, strict=True))
        assert row["prediction_set"] == sorted(row["prediction_set"], key=lambda slug: (-by_slug[slug], slug))
        assert row["top_prob"] == min(max(p, 1 - p) for p in probs)
        reason = "clear" if row["top_prob"] > threshold - 1e-9 else "below_threshold"
        assert row["reason"] == (reason if ok else "no_usable_trace")


def test_at_one_half_nothing_is_uncertain_and_even_odds_apply(decided):
    row = decided[0.5, (0.5, 0.4, 0.6), 4]
    assert (row["labels"], row["abstain"], row["prediction_set"]) == (["c", "a"], False, ["c", "a"])


def test_nothing_applying_is_an_answer_too(decided):
    row = decided[0.93, (0.07, 0.0, 0.07), 4]
    assert (row["labels"], row["abstain"], row["prediction_set"], row["reason"]) == ([], False, [], "clear")

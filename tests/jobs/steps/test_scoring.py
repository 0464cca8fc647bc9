"""Scoring: which videos are ready, and what a rule makes of probabilities."""

from __future__ import annotations

from datetime import date
from functools import cache

import pytest
from pyspark.sql import functions as F

from jobs.steps.deciding import decide
from jobs.steps.traced import traced
from lake.audit import audit
from lake.table import spark_schema
from schemas.decisions import DECISIONS
from schemas.label_set import LabelSet
from schemas.traces import TRACES

LABELS = LabelSet(("a", "b", "c"))
DAY, NEXT_DAY = date(2026, 3, 1), date(2026, 3, 2)

ROWS = [
    # video, recipe, index, attempt, status, think
    ("whole", "r", 1, 0, "ok", "one"),
    ("whole", "r", 0, 0, "parse_error", "zero"),
    ("whole", "r", 2, 0, "ok", "beyond K"),
    ("short", "r", 0, 0, "ok", "-"),
    ("mixed", "r", 0, 0, "ok", "-"),
    ("mixed", "q", 1, 0, "ok", "another recipe"),
    ("mended", "r", 0, 0, "generation_error", "first"),
    ("mended", "r", 0, 1, "ok", "second"),
    ("mended", "r", 1, 0, "ok", "-"),
    ("waiting", "r", 0, 0, "generation_error", "first"),
    ("waiting", "r", 0, 1, "generation_error", "second"),
    ("waiting", "r", 1, 0, "ok", "-"),
]


@pytest.fixture(scope="module")
def ready(spark):
    """ready(attempts) -> {video: [(index, think), ...]} at K = 2."""
    names = ("video_id", "recipe_id", "rollout_index", "attempt", "status", "think")
    given = [dict(zip(names, row, strict=True)) | {"ingested_on": DAY, "input_digest": "0"} for row in ROWS]
    values = [tuple(row.get(column.name) for column in TRACES.columns) for row in given]
    traces = spark.createDataFrame(values, spark_schema(TRACES))

    @cache
    def compute(attempts: int) -> dict:
        rows = traced(traces, [("r", 2)], attempts).collect()
        assert all(row["ingested_on"] == DAY for row in rows)  # the folder that the score will lie in
        return {row["video_id"]: [(t["rollout_index"], t["think"]) for t in row["traces"]] for row in rows}

    return compute


def test_only_videos_with_all_their_rollouts_are_ready(ready):
    found = ready(3)
    assert set(found) == {"whole", "mended"}
    assert found["whole"] == [(0, "zero"), (1, "one")]


def test_of_several_attempts_the_last_is_looked_at(ready):
    assert ready(3)["mended"] == [(0, "second"), (1, "-")]


def test_a_passing_failure_waits_until_its_attempts_are_used_up(ready):
    assert "waiting" not in ready(3)
    assert ready(2)["waiting"] == [(0, "second"), (1, "-")]


SCORES = {
    "at the threshold": ({"a": 0.6, "b": 0.3, "c": 0.1}, 4),
    "just below": ({"a": 0.6 - 1e-9, "b": 0.3, "c": 0.1 + 1e-9}, 4),
    "certain": ({"a": 1.0, "b": 0.0, "c": 0.0}, 4),
    "tied": ({"c": 0.45, "b": 0.45, "a": 0.1}, 4),
    "three ways": ({"c": 1 / 3, "b": 1 / 3, "a": 1 / 3}, 4),
    "tied at the top": ({"b": 0.5, "a": 0.5, "c": 0.0}, 4),
    "nothing usable": ({"a": 0.9, "b": 0.05, "c": 0.05}, 0),
}


@pytest.fixture(scope="module")
def decided(spark):
    rows = [(name, "t", "s", "0", probs, ok, NEXT_DAY) for name, (probs, ok) in SCORES.items()]
    scores = spark.createDataFrame(
        rows,
        "video_id string, task string, scorer_id string, input_digest string, probs map<string,double>, "
        "rollouts_ok int, ingested_on date",
    )

    def under(rule: dict) -> dict:
        return {row["video_id"]: row.asDict() for row in decide(scores, rule, "rule", LABELS).collect()}

    @cache
    def compute(threshold: float, coverage: float) -> dict:
        return under({"threshold": threshold, "coverage": coverage})

    compute.under = under
    return compute


def test_a_threshold_that_is_reached_exactly_is_reached(decided):
    found = decided(0.6, 0.9)
    clear, below = found["at the threshold"], found["just below"]
    assert (clear["label"], clear["abstain"], clear["reason"], clear["top_prob"]) == ("a", False, "clear", 0.6)
    assert (below["label"], below["abstain"], below["reason"]) == (None, True, "below_threshold")
    assert clear["rule_id"] == "rule" and clear["scorer_id"] == "s"


def test_the_prediction_set_ends_where_the_coverage_is_reached(decided):
    assert decided(0.6, 0.9)["at the threshold"]["prediction_set"] == ["a", "b"]  # 0.6 + 0.3 is 0.8999...
    assert decided(0.6, 0.91)["at the threshold"]["prediction_set"] == ["a", "b", "c"]
    assert decided(0.6, 0.6)["at the threshold"]["prediction_set"] == ["a"]
    assert decided(0.6, 0.05)["at the threshold"]["prediction_set"] == ["a"]
    assert decided(0.6, 1.0)["certain"]["prediction_set"] == ["a"]


def test_equal_probabilities_go_by_slug(decided):
    found = decided(0.5, 0.9)
    assert found["tied"]["prediction_set"] == ["b", "c"]
    assert found["three ways"]["prediction_set"] == ["a", "b", "c"]
    assert (found["tied at the top"]["label"], found["tied at the top"]["prediction_set"]) == ("a", ["a", "b"])


def test_a_video_without_a_usable_trace_is_left_to_people(decided):
    found = decided(0.0, 0.9)["nothing usable"]
    assert (found["label"], found["abstain"], found["reason"]) == (None, True, "no_usable_trace")
    assert found["prediction_set"] == ["a"]


def test_decisions_keep_their_contract(decided, spark, tmp_path):
    rows = [tuple(row.get(column.name) for column in DECISIONS.columns) for row in decided(0.6, 0.9).values()]
    staged = spark.createDataFrame(rows, spark_schema(DECISIONS)).withColumn("wave_id", F.lit("r.w00001"))
    staged.write.parquet(str(tmp_path / "rows"))
    found = audit(
        spark.read.schema(spark_schema(DECISIONS)).parquet(str(tmp_path / "rows")),
        DECISIONS.contract(LABELS),
        DECISIONS.key,
    )
    assert (found.rows, found.refused) == (len(SCORES), {})
    assert {row["ingested_on"] for row in decided(0.6, 0.9).values()} == {NEXT_DAY}


def test_under_a_rule_of_precision_each_label_has_a_threshold_of_its_own(decided):
    rule = {"by": "precision", "precision": 0.9, "at_least": {"a": 0.7, "b": 0.4, "c": 2.0}, "coverage": 0.9}
    found = decided.under(rule)
    assert {name: row["label"] for name, row in found.items()} == {
        "at the threshold": None,
        "just below": None,
        "certain": "a",
        "tied": "b",
        "three ways": None,
        "tied at the top": None,
        "nothing usable": None,
    }
    assert found["tied at the top"]["reason"] == "below_threshold" and found["certain"]["expected_cost"] is None


def test_under_a_rule_of_costs_the_label_of_least_expected_cost_is_given_unless_a_look_is_cheaper(decided):
    dear = {"a": {"a": 0, "b": 1, "c": 1}, "b": {"a": 5, "b": 0, "c": 1}, "c": {"a": 1, "b": 1, "c": 0}}
    found = decided.under({"by": "cost", "costs": dear, "review": 0.75, "coverage": 0.9})
    seen = found["at the threshold"]  # a: 5 x 0.3 + 0.1; b: 0.6 + 0.1; c: 0.6 + 0.3
    assert (seen["label"], seen["expected_cost"], seen["top_prob"]) == ("b", pytest.approx(0.7), 0.6)
    assert (found["certain"]["label"], found["certain"]["expected_cost"]) == ("a", 0.0)
    lost = found["tied"]  # b: 0.1 + 0.45
    assert (lost["label"], lost["expected_cost"]) == ("b", pytest.approx(0.55))
    found = decided.under({"by": "cost", "costs": dear, "review": 0.5, "coverage": 0.9})
    assert (found["tied"]["label"], found["tied"]["reason"]) == (None, "review_is_cheaper")
    assert found["nothing usable"]["reason"] == "no_usable_trace"


@pytest.mark.parametrize(
    ("scheme", "up_to", "expected"),
    [
        (
            "lac",
            {"a": 0.5, "b": 0.7, "c": 0.2},
            {"at the threshold": ["a", "b"], "tied": ["b"], "three ways": ["a", "b"]},
        ),
        ("aps", {"a": 0.95, "b": 0.95, "c": 0.5}, {"at the threshold": ["a", "b"], "tied": ["b"], "certain": ["a"]}),
        ("lac", {"a": 2.0, "b": 2.0, "c": 2.0}, {"certain": ["a", "b", "c"], "three ways": ["a", "b", "c"]}),
    ],
)
def test_conformal_sets_hold_what_is_not_too_strange_and_what_is_most_probable(decided, scheme, up_to, expected):
    found = decided.under({"threshold": 0.5, "coverage": 0.9, "sets": scheme, "up_to": up_to})
    assert {name: found[name]["prediction_set"] for name in expected} == expected

"""Contracts: every staged row is kept or refused, and both judges count the same rows."""

from __future__ import annotations

import math

import pytest
from schemas.checks import Contract, audit, between, holds, matches, not_null, one_of

CHECKS = (
    not_null("id"),
    one_of("kind", ("cat", "dog")),
    between("score", 0, 1),
    between("size", 1),
    matches("code", "^[a-z]+\\d$"),
    holds("big_dogs_only", "kind <> 'dog' OR size > 10", "a small dog"),
)
CONTRACT = Contract(CHECKS, unique=("id",))
SCHEMA = "id string, kind string, score double, size int, code string"
GOOD = ("cat", 0.5, 3, "a1")
# What breaks which check, and what does not: NULL, NaN and the limits themselves.
ROWS = {
    "good": (*GOOD,),
    "low": ("cat", 0.0, 1, "a1"),
    "high": ("cat", 1.0, 99, "a1"),
    "nulls": ("cat", None, None, None),
    "big": ("dog", 0.5, 11, "a1"),
    "kind": ("bird", 0.5, 3, "a1"),
    "nan": ("cat", math.nan, 3, "a1"),
    "below": ("cat", -1e-9, 3, "a1"),
    "above": ("cat", 1 + 1e-9, 3, "a1"),
    "infinite": ("cat", math.inf, 3, "a1"),
    "empty": ("cat", 0.5, 0, "a1"),
    "code": ("cat", 0.5, 3, "A1"),
    "small": ("dog", 0.5, 10, "a1"),
    "unknown": ("dog", 0.5, None, "a1"),  # its predicate is NULL
    "nokind": (None, 0.5, 11, "a1"),  # this one's is true, and for one_of NULL passes
}
REFUSED = {
    "kind": "kind_is_known",
    "nan": "score_is_in_range",
    "below": "score_is_in_range",
    "above": "score_is_in_range",
    "infinite": "score_is_in_range",
    "empty": "size_is_in_range",
    "code": "code_is_well_formed",
    "small": "big_dogs_only",
    "unknown": "big_dogs_only",
}


@pytest.fixture(scope="module")
def audited(spark):
    """The rows above, one without an id, one there three times, and one that fails two checks."""
    rows = [(name, *row) for name, row in ROWS.items()]
    rows += [(None, *GOOD), ("good", *GOOD), ("good", "cat", 0.6, 4, "b2"), ("both", "bird", 2.0, 3, "a1")]
    return audit(spark.createDataFrame(rows, SCHEMA), CONTRACT)


def test_each_row_is_judged_by_itself(audited):
    refused = {
        row["id"]: row["refused_reason"] for row in audited.refused.collect() if row["refused_reason"] != "key_twice"
    }
    assert refused == REFUSED | {None: "id_is_given", "both": "kind_is_known"}
    assert sorted(row["id"] for row in audited.kept.collect()) == sorted(ROWS.keys() - REFUSED.keys())


def test_refused_rows_bring_their_values_and_a_message(audited):
    rows = {row["id"]: row for row in audited.refused.collect()}
    assert (rows["small"]["refused_message"], rows["small"]["size"]) == ("a small dog", 10)
    assert (
        rows["above"]["refused_message"] == "score is outside [0, 1]"
        and rows[None]["refused_message"] == "id is missing"
    )


def test_kept_and_refused_are_all_staged_rows(audited):
    assert (audited.rows, audited.rows_kept, audited.rows_refused, audited.rows_broken) == (19, 6, 13, 11)
    assert audited.kept.count() + audited.refused.count() == 19


def test_of_several_good_rows_with_one_key_always_the_same_one_is_kept(audited):
    twice = {entry["check"]: entry for entry in audited.results}["id_is_unique"]
    assert (twice["unexpected"], twice["success"]) == (2, False)
    refused = audited.refused.where("refused_reason = 'key_twice'").collect()
    assert [row["id"] for row in refused] == ["good", "good"]
    (kept,) = {audited.kept.repartition(n).where("id = 'good'").first()["code"] for n in (1, 3)}
    assert sorted([kept, *(row["code"] for row in refused)]) == ["a1", "a1", "b2"]


def test_great_expectations_counts_what_the_predicates_refuse(audited, spark):
    rows = [(name, *row) for name, row in ROWS.items()]
    rows += [(None, *GOOD), ("good", *GOOD), ("good", "cat", 0.6, 4, "b2"), ("both", "bird", 2.0, 3, "a1")]
    staged = spark.createDataFrame(rows, SCHEMA)
    wanted = {check.name: staged.where(f"NOT coalesce(({check.sql}), false)").count() for check in CHECKS}
    found = {entry["check"]: entry["unexpected"] for entry in audited.results if entry["check"] != "id_is_unique"}
    assert found == wanted and min(wanted.values()) > 0
    assert not any(entry["success"] for entry in audited.results)
    assert [entry["check"] for entry in audited.results] == [*(check.name for check in CHECKS), "id_is_unique"]


def test_a_number_that_is_none_is_out_of_any_range(spark):
    staged = spark.createDataFrame([("a", math.nan), ("b", 2.0)], "id string, x double")
    for check in (between("x", 0), between("x", None, 5), between("x")):
        found = audit(staged, Contract((check,), ("id",)))
        assert (found.rows_kept, found.rows_refused, found.results[0]["unexpected"]) == (1, 1, 1)
        assert not found.results[0]["success"]


def test_rows_that_the_stage_refused_are_refused_but_break_nothing(spark):
    rows = [
        ("fine", "cat", None, None),
        ("broken", "bird", None, None),
        ("unread", None, "not_a_video", "no stream"),
        ("also", "bird", "too_large", "9 bytes"),
    ]
    staged = spark.createDataFrame(rows, "id string, kind string, refused_reason string, refused_message string")
    found = audit(staged, Contract((not_null("kind"), one_of("kind", ("cat",))), ("id",)))
    assert (found.rows, found.rows_kept, found.rows_refused, found.rows_broken) == (4, 1, 3, 1)
    refused = {row["id"]: (row["refused_reason"], row["refused_message"]) for row in found.refused.collect()}
    assert refused["unread"] == ("not_a_video", "no stream") and refused["also"] == ("too_large", "9 bytes")
    assert refused["broken"][0] == "kind_is_known"
    assert [entry["unexpected"] for entry in found.results] == [0, 1, 0]


def test_an_empty_frame_keeps_its_contract(spark):
    found = audit(spark.createDataFrame([], SCHEMA), CONTRACT)
    assert (found.rows, found.rows_kept, found.rows_refused) == (0, 0, 0)
    assert all(entry["success"] and entry["unexpected"] == 0 for entry in found.results)
    assert len(found.results) == len(CHECKS) + 1


def test_a_check_that_cannot_run_is_a_fault_and_no_verdict(spark):
    staged = spark.createDataFrame([("a",)], "id string")
    with pytest.raises(Exception, match="nothing_here"):
        audit(staged, Contract((not_null("nothing_here"),), ("id",)))

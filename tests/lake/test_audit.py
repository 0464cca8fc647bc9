"""Contracts: every staged row is kept or refused, and both judges count the same rows."""

from __future__ import annotations

import dataclasses
import math

import pytest

from lake.audit import Audit, audit
from lake.expectations import CheckError, passes, verdicts
from schemas.checks import between, holds, matches, not_null, one_of

CONTRACT = (
    not_null("id"),
    one_of("kind", ("cat", "dog")),
    between("score", 0, 1),
    between("size", 1),
    matches("code", "^[a-z]+\\d$"),
    holds("big_dogs_only", "kind <> 'dog' OR size > 10", "a small dog"),
)
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


# The rows above, one without an id, one there three times, and one that fails two checks.
ALL = [(name, *row) for name, row in ROWS.items()]
ALL += [(None, *GOOD), ("good", *GOOD), ("good", "cat", 0.6, 4, "b2"), ("both", "bird", 2.0, 3, "a1")]


@pytest.fixture(scope="module")
def staged(spark, tmp_path_factory):
    """staged(rows, schema, files): the rows read from Parquet files, as a wave's are."""

    def write(rows: list[tuple], schema: str = SCHEMA, files: int = 1):
        folder = str(tmp_path_factory.mktemp("staged") / "rows")
        spark.createDataFrame(rows, schema).repartition(files).write.parquet(folder)
        return spark.read.schema(schema).parquet(folder)

    return write


@pytest.fixture(scope="module")
def audited(staged):
    return audit(staged(ALL), CONTRACT, ("id",))


def refusals(found: Audit) -> dict[str, int]:
    """Rows by reason, over all files."""
    sums: dict[str, int] = {}
    for (_, reason), count in found.refused.items():
        sums[reason] = sums.get(reason, 0) + count
    return sums


def test_each_row_is_judged_by_itself(audited):
    rows = [row for row in audited.judged.collect() if row["refused_reason"] != "key_twice"]
    refused = {row["id"]: row["refused_reason"] for row in rows if row["refused_reason"]}
    assert refused == REFUSED | {None: "id_is_given", "both": "kind_is_known"}
    kept = [row["id"] for row in rows if not row["refused_reason"]]
    assert sorted(kept) == sorted(ROWS.keys() - REFUSED.keys())


def test_refused_rows_bring_their_values_and_a_message(audited):
    rows = {row["id"]: row for row in audited.judged.where("refused_reason IS NOT NULL").collect()}
    assert (rows["small"]["refused_message"], rows["small"]["size"]) == ("a small dog", 10)
    assert rows["above"]["refused_message"] == "score is outside [0, 1]"
    assert rows[None]["refused_message"] == "id is missing"


def test_kept_and_refused_are_all_staged_rows(audited):
    assert (audited.rows, sum(audited.refused.values())) == (19, 13)
    assert audited.judged.count() == 19 and audited.judged.where("refused_reason IS NULL").count() == 6
    assert refusals(audited)["key_twice"] == 2


def test_refusals_are_told_by_file(staged):
    """Only the files that hold them are written anew."""
    found = audit(staged(ALL, files=4), CONTRACT, ("id",))
    by_file: dict[tuple, int] = {}
    for row in found.judged.where("refused_reason IS NOT NULL").collect():
        place = (row["file_name"], row["refused_reason"])
        by_file[place] = by_file.get(place, 0) + 1
    assert found.refused == by_file and len({name for name, _ in by_file}) > 1


def test_of_several_good_rows_with_one_key_always_the_same_one_is_kept(staged):
    rows = [("x", "cat", 0.1 * n, n + 1, f"a{n}") for n in range(8)]
    kept = set()
    for files, order in ((1, rows), (3, rows[::-1])):
        found = audit(staged(order, files=files), CONTRACT, ("id",))
        assert refusals(found) == {"key_twice": 7}
        (row,) = found.judged.where("refused_reason IS NULL").collect()
        kept.add(row["code"])
        unique = found.results[-1]
        assert (unique["check"], unique["unexpected"], unique["success"]) == ("id_is_unique", 7, False)
    assert len(kept) == 1


def test_every_failure_counts_for_its_check(audited, spark):
    rows = spark.createDataFrame(ALL, SCHEMA)
    wanted = {check.name: rows.where(f"NOT coalesce(({check.sql}), false)").count() for check in CONTRACT}
    found = {entry["check"]: entry["unexpected"] for entry in audited.results if entry["check"] != "id_is_unique"}
    assert found == wanted and min(wanted.values()) > 0
    assert not any(entry["success"] for entry in audited.results)
    assert [entry["check"] for entry in audited.results] == [*(check.name for check in CONTRACT), "id_is_unique"]


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.name)
def test_great_expectations_says_of_each_row_what_the_predicate_says(spark, check):
    rows = spark.createDataFrame(ALL, SCHEMA).withColumn("passes", passes(check)).collect()
    good = [row[:-1] for row in rows if row["passes"]]
    assert verdicts(spark.createDataFrame(good, SCHEMA), (check,)) == {check.name: True}
    for bad in {row[:-1] for row in rows if not row["passes"]}:
        assert verdicts(spark.createDataFrame([bad], SCHEMA), (check,)) == {check.name: False}, bad


def test_a_check_whose_two_forms_differ_is_a_fault_and_no_verdict(staged):
    lenient = dataclasses.replace(CONTRACT[1], sql="true")
    with pytest.raises(CheckError, match="kind_is_known"):
        audit(staged(ALL), (lenient,), ("id",))


def test_a_number_that_is_none_is_out_of_any_range(staged):
    rows = staged([("a", math.nan), ("b", 2.0)], "id string, x double")
    for check in (between("x", 0), between("x", None, 5), between("x")):
        found = audit(rows, (check,), ("id",))
        assert (found.rows, refusals(found), found.results[0]["unexpected"]) == (2, {check.name: 1}, 1)
        assert not found.results[0]["success"]


def test_an_empty_frame_keeps_its_contract(staged):
    found = audit(staged([]), CONTRACT, ("id",))
    assert (found.rows, found.refused) == (0, {})
    assert all(entry["success"] and entry["unexpected"] == 0 for entry in found.results)
    assert len(found.results) == len(CONTRACT) + 1


def test_a_check_that_cannot_run_is_a_fault_and_no_verdict(staged):
    with pytest.raises(Exception, match="nothing_here"):
        audit(staged([("a",)], "id string"), (not_null("nothing_here"),), ("id",))

"""A contract: what good rows satisfy, said once, run twice - by Great Expectations for the record, as SQL to decide.

Each check gives one expectation (its result becomes a row of the quality table) and one SQL predicate (rows that fail
it go to quarantine with its reason). A predicate that is NULL counts as failed, so kept + refused = staged.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StructType


@dataclass(frozen=True)
class Check:
    """name: what good rows satisfy; sql: the same as a predicate; expectation: the same for Great Expectations."""

    name: str
    sql: str
    expectation: tuple[str, dict[str, Any]]
    message: str


def not_null(column: str) -> Check:
    return Check(
        f"{column}_is_given",
        f"`{column}` IS NOT NULL",
        ("ExpectColumnValuesToNotBeNull", {"column": column}),
        f"{column} is missing",
    )


def one_of(column: str, values: tuple[str, ...]) -> Check:
    """A value out of a closed set; NULL passes (ask for `not_null` beside it where it should not)."""
    listed = ", ".join(f"'{value}'" for value in values)
    return Check(
        f"{column}_is_known",
        f"`{column}` IS NULL OR `{column}` IN ({listed})",
        ("ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)}),
        f"{column} is not one of {', '.join(values)}",
    )


def between(column: str, low: float | None = None, high: float | None = None) -> Check:
    """A number within limits, both included; NULL passes, NaN does not."""
    parts = [f"NOT isnan(`{column}`)"]
    parts += [f"`{column}` >= {low}"] if low is not None else []
    parts += [f"`{column}` <= {high}"] if high is not None else []
    return Check(
        f"{column}_is_in_range",
        f"`{column}` IS NULL OR ({' AND '.join(parts)})",
        # Spark holds NaN for greater than any number: an upper limit, be it infinite, is what refuses it.
        (
            "ExpectColumnValuesToBeBetween",
            {"column": column, "min_value": low, "max_value": math.inf if high is None else high},
        ),
        f"{column} is outside [{low}, {high}]",
    )


def matches(column: str, regex: str) -> Check:
    """A text of this form; NULL passes."""
    quoted = regex.replace("\\", "\\\\")
    return Check(
        f"{column}_is_well_formed",
        f"`{column}` IS NULL OR `{column}` RLIKE '{quoted}'",
        ("ExpectColumnValuesToMatchRegex", {"column": column, "regex": regex}),
        f"{column} does not look like {regex}",
    )


def holds(name: str, sql: str, message: str) -> Check:
    """Any predicate over one row."""
    query = f"SELECT * FROM {{batch}} WHERE NOT coalesce(({sql}), false)"
    return Check(name, sql, ("UnexpectedRowsExpectation", {"unexpected_rows_query": query}), message)


@dataclass(frozen=True)
class Contract:
    """The checks of one table; `unique`: the columns that name a row. Of several good rows with one name one is kept."""

    checks: tuple[Check, ...]
    unique: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """kept and refused: disjoint and complete; refused has refused_reason and refused_message beside the row's own columns.

    results: one dict per check for the quality table.
    """

    kept: DataFrame
    refused: DataFrame
    rows: int
    rows_kept: int
    rows_refused: int  # by the contract or by the stage that made them
    rows_broken: int  # by a check of the contract: what a gate looks at
    results: list[dict[str, Any]] = field(default_factory=list)


TWICE = "key_twice"


class AuditError(RuntimeError):
    """A check could not run: a fault of the contract itself."""


def audit(staged: DataFrame, contract: Contract) -> Audit:
    """Split staged rows into kept and refused and run the contract's expectations over them.

    `staged` must come from files, not from a plan that runs a model: it is read several times. A stage that knows a row
    to be bad says so in the columns refused_reason and refused_message; the expectations leave such a row out.
    """
    made = staged
    if "refused_reason" in staged.columns:
        made = staged.where("refused_reason IS NULL")
    judged = _name_once(staged.withColumn("_refusal", _refusal(contract, "refused_reason" in staged.columns)), contract)
    kept = judged.where("_refusal IS NULL").drop("_refusal")
    refused = judged.where("_refusal IS NOT NULL").select(
        *[name for name in staged.columns if name not in ("refused_reason", "refused_message")],
        F.col("_refusal.reason").alias("refused_reason"),
        F.col("_refusal.message").alias("refused_message"),
    )
    counted = judged.groupBy(F.col("_refusal.reason").alias("reason")).count().collect()
    by_reason = {row["reason"]: row["count"] for row in counted}
    rows, rows_kept, twice = sum(by_reason.values()), by_reason.pop(None, 0), by_reason.get(TWICE, 0)
    rows_broken = sum(by_reason.get(check.name, 0) for check in contract.checks)
    results = [
        *expectations(made, contract),
        _result(f"{'_and_'.join(contract.unique)}_is_unique", twice == 0, twice, rows, "no key twice"),
    ]
    return Audit(kept, refused, rows, rows_kept, rows - rows_kept, rows_broken, results)


def _name_once(judged: DataFrame, contract: Contract) -> DataFrame:
    """Refuse all but one of the good rows of one name: always the same ones, however often this is asked."""
    plain = [field.name for field in judged.schema if not isinstance(field.dataType, (MapType, ArrayType, StructType))]
    good = F.col("_refusal").isNull()
    place = F.row_number().over(Window.partitionBy(*contract.unique, good).orderBy(F.xxhash64(*plain)))
    again = F.struct(F.lit(TWICE).alias("reason"), F.lit("another row has the same key").alias("message"))
    return (
        judged.withColumn("_place", place)
        .withColumn("_refusal", F.when(good & (F.col("_place") > 1), again).otherwise(F.col("_refusal")))
        .drop("_place")
    )


def _refusal(contract: Contract, stage_speaks: bool) -> Column:
    """The first failed check as a struct (reason, message); NULL for a good row, never NULL because a predicate is."""
    said = F.struct(F.col("refused_reason").alias("reason"), F.col("refused_message").alias("message"))
    reasons = [F.when(F.col("refused_reason").isNotNull(), said)] if stage_speaks else []
    reasons += [
        F.when(
            ~F.coalesce(F.expr(f"({check.sql})"), F.lit(False)),
            F.struct(F.lit(check.name).alias("reason"), F.lit(check.message).alias("message")),
        )
        for check in contract.checks
    ]
    return F.coalesce(*reasons)


def expectations(staged: DataFrame, contract: Contract) -> list[dict[str, Any]]:
    """Run the contract's expectations with Great Expectations; one result per check, also over an empty frame."""
    context = _context()
    import great_expectations as gx
    from great_expectations import expectations as gxe

    suite = gx.ExpectationSuite(name="contract")
    for check in contract.checks:
        kind, arguments = check.expectation
        suite.add_expectation(getattr(gxe, kind)(**arguments, meta={"check": check.name}))
    source = context.data_sources.add_or_update_spark(name="lake", persist=False)
    batch = source.add_dataframe_asset(name="staged").add_batch_definition_whole_dataframe("all")
    validation = batch.get_batch({"dataframe": staged}).validate(suite, result_format=_COUNTS)
    by_name = {}
    for outcome in validation.results:
        name = outcome.expectation_config.meta["check"]
        failure = next((entry for entry in (outcome.exception_info or {}).values() if isinstance(entry, dict)), None)
        if failure and failure.get("raised_exception"):
            raise AuditError(f"check {name} could not run: {failure.get('exception_message')}")
        result = outcome.result
        count = result.get("unexpected_count") or result.get("observed_value") or 0  # None over an empty frame
        expected = outcome.expectation_config.type + " " + str(check_arguments(outcome))
        by_name[name] = _result(name, bool(outcome.success), int(count), result.get("element_count"), expected)
    return [by_name[check.name] for check in contract.checks]


def check_arguments(outcome: Any) -> dict[str, Any]:
    kwargs = outcome.expectation_config.kwargs
    return {key: value for key, value in sorted(kwargs.items()) if key != "batch_id" and value is not None}


def _result(name: str, success: bool, unexpected: int, rows: int | None, expected: str) -> dict[str, Any]:
    return {"check": name, "success": success, "unexpected": unexpected, "rows": rows, "expected": expected}


# Counts only: quarantine holds the rows themselves, so no query for examples.
_COUNTS = {"result_format": "BASIC", "partial_unexpected_count": 0}


@lru_cache(maxsize=1)
def _context() -> Any:
    """One ephemeral context per process; usage statistics and progress bars off."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context

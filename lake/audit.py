"""A contract held against staged files: every row is kept or refused, by the same checks that Great Expectations records."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from schemas.checks import Contract

TWICE = "key_twice"


class AuditError(RuntimeError):
    """A check could not run: a fault of the contract itself."""


@dataclass(frozen=True)
class Audit:
    """judged: the staged rows with refused_reason and refused_message, NULL for kept ones, and the file_name of each.

    refused: how many rows were refused, by (file name, reason). results: one dict per check for the table quality.
    """

    judged: DataFrame
    rows: int
    refused: dict[tuple[str, str], int]
    results: list[dict[str, Any]]


def audit(staged: DataFrame, contract: Contract, key: tuple[str, ...]) -> Audit:
    """Judge staged rows and run the contract's expectations over them.

    `staged` must be read from files, not from a plan that runs a model: it is read several times. Of several good rows with
    one key one is kept, always the same. A row that fails several checks has the first one's reason.
    """
    judged = _name_once(staged.select("*", "_metadata.file_name", _refusal(contract).alias("_refusal")), key)
    judged = judged.select(
        *staged.columns,
        "file_name",
        F.col("_refusal.reason").alias("refused_reason"),
        F.col("_refusal.message").alias("refused_message"),
    )
    counted = judged.groupBy("file_name", "refused_reason").count().collect()
    refused = {(r["file_name"], r["refused_reason"]): r["count"] for r in counted if r["refused_reason"] is not None}
    rows = sum(row["count"] for row in counted)
    twice = sum(count for (_, reason), count in refused.items() if reason == TWICE)
    unique = _result(f"{'_and_'.join(key)}_is_unique", twice == 0, twice, rows, "no key twice")
    return Audit(judged, rows, refused, [*expectations(staged, contract), unique])


def _name_once(judged: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """Refuse all but one of the good rows of one key: always the same ones, however often this is asked."""
    good = judged.where("_refusal IS NULL")
    doubled = good.groupBy(*key).count().where("count > 1").select(*key)  # of key columns alone, and mostly empty
    if doubled.isEmpty():
        return judged
    values = [name for name, kind in judged.dtypes if not kind.startswith(("map", "array", "struct"))]
    values.remove("file_name")
    again = F.struct(F.lit(TWICE).alias("reason"), F.lit("another row has the same key").alias("message"))
    place = F.row_number().over(Window.partitionBy(*key).orderBy(F.xxhash64(*values), "file_name"))
    ranked = good.join(F.broadcast(doubled), list(key), "left_semi").withColumn("_place", place)
    ranked = ranked.withColumn("_refusal", F.when(F.col("_place") > 1, again)).drop("_place")
    others = judged.where("_refusal IS NOT NULL").unionByName(good.join(F.broadcast(doubled), list(key), "left_anti"))
    return others.unionByName(ranked)


def _refusal(contract: Contract) -> Column:
    """The first failed check as a struct (reason, message); NULL for a good row, never NULL because a predicate is."""
    return F.coalesce(
        *[
            F.when(
                ~F.coalesce(F.expr(f"({check.sql})"), F.lit(False)),
                F.struct(F.lit(check.name).alias("reason"), F.lit(check.message).alias("message")),
            )
            for check in contract
        ]
    )


def expectations(staged: DataFrame, contract: Contract) -> list[dict[str, Any]]:
    """Run the contract's expectations with Great Expectations; one result per check, also over an empty frame."""
    context = _context()
    import great_expectations as gx
    from great_expectations import expectations as gxe

    suite = gx.ExpectationSuite(name="contract")
    for check in contract:
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
        expected = outcome.expectation_config.type + " " + str(_arguments(outcome))
        by_name[name] = _result(name, bool(outcome.success), int(count), result.get("element_count"), expected)
    return [by_name[check.name] for check in contract]


def _arguments(outcome: Any) -> dict[str, Any]:
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

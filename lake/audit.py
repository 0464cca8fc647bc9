"""A contract held against staged files: every row is kept or refused, by checks whose verdicts Great Expectations shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lake.expectations import CheckError, passes, verdicts
from schemas.checks import Contract

TWICE = "key_twice"


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
    one key one is kept, always the same; where a key is () all are. A row that fails several checks has the first one's
    reason and counts for each.
    Raises CheckError where Great Expectations says otherwise.
    """
    judged = staged.select("*", "_metadata.file_name", _refusal(contract).alias("_refusal"))
    judged = _name_once(judged, key) if key else judged
    judged = judged.select(
        *staged.columns,
        "file_name",
        F.col("_refusal.reason").alias("refused_reason"),
        F.col("_refusal.message").alias("refused_message"),
    )
    failures = [F.count_if(~passes(check)).alias(check.name) for check in contract]
    counted = judged.groupBy("file_name", "refused_reason").agg(F.count("*").alias("rows"), *failures).collect()
    refused = {(r["file_name"], r["refused_reason"]): r["rows"] for r in counted if r["refused_reason"] is not None}
    rows = sum(row["rows"] for row in counted)
    failed = {check.name: sum(row[check.name] for row in counted) for check in contract}
    results = [_result(check.name, failed[check.name], rows, check.sql) for check in contract]
    agreed = verdicts(staged, contract)
    for result in results:
        if result["success"] != agreed[result["check"]]:
            raise CheckError(f"Great Expectations says the opposite of {result}: the two forms of this check differ")
    if key:
        twice = sum(count for (_, reason), count in refused.items() if reason == TWICE)
        results.append(_result(f"{'_and_'.join(key)}_is_unique", twice, rows, "no key twice"))
    return Audit(judged, rows, refused, results)


def _result(name: str, unexpected: int, rows: int, expected: str) -> dict[str, Any]:
    told = {"unexpected": unexpected, "rows": rows, "expected": expected}
    return {"check": name, "about": "", "severity": "refuse", "success": unexpected == 0} | told


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
    """The first failed check as a struct (reason, message); NULL for a good row."""
    reasons = [F.struct(F.lit(check.name).alias("reason"), F.lit(check.message).alias("message")) for check in contract]
    return F.coalesce(*[F.when(~passes(check), reason) for check, reason in zip(contract, reasons, strict=True)])

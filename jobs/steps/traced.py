"""Videos with all their traces together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from models.calibration.features import TRACE_FIELDS
from schemas.traces import TRANSIENT

_BY_RECIPE = (
    "CASE WHEN a.recipe_id < b.recipe_id THEN -1 WHEN a.recipe_id > b.recipe_id THEN 1 "
    "ELSE a.rollout_index - b.rollout_index END"
)


def so_far(traces: DataFrame, plan: Sequence[tuple[str, int]], max_attempts: int, fields: Sequence[str]) -> DataFrame:
    """Videos with what there is for good of a plan (recipe ids with how many rollouts): columns as of `traced`."""
    most = {recipe_id: max(k for other, k in plan if other == recipe_id) for recipe_id, _ in plan}
    parts = [_latest(traces, recipe_id, k, max_attempts, fields) for recipe_id, k in most.items()]
    trace = F.struct("recipe_id", "rollout_index", *[F.col(f"t.{name}") for name in _own(fields)])
    return (
        reduce(DataFrame.unionByName, parts)
        .groupBy("video_id", "input_digest", "ingested_on")
        .agg(F.collect_list(trace).alias("traces"))
        .withColumn("traces", F.expr(f"array_sort(traces, (a, b) -> {_BY_RECIPE})"))
    )


def traced(
    traces: DataFrame, plan: Sequence[tuple[str, int]], max_attempts: int, fields: Sequence[str] = TRACE_FIELDS
) -> DataFrame:
    """Videos whose plan (see `so_far`) is all there for good: video_id, input_digest, ingested_on, traces (structs with
    recipe_id, rollout_index and these fields, by recipe and index)."""
    most = {recipe_id: max(k for other, k in plan if other == recipe_id) for recipe_id, _ in plan}
    return so_far(traces, plan, max_attempts, fields).where(F.size("traces") == sum(most.values()))


def _own(fields: Sequence[str]) -> list[str]:
    return [name for name in fields if name not in ("rollout_index", "recipe_id")]


def _latest(traces: DataFrame, recipe_id: str, k: int, max_attempts: int, fields: Sequence[str]) -> DataFrame:
    """The first k rollouts of each video that are there for good: its key, recipe_id, rollout_index, t (the fields)."""
    mine = traces.where((F.col("recipe_id") == recipe_id) & (F.col("rollout_index") < k))
    return (
        mine.groupBy("video_id", "input_digest", "ingested_on", "recipe_id", "rollout_index")
        .agg(F.max_by(F.struct("attempt", *_own(fields)), "attempt").alias("t"))
        .where(~F.col("t.status").isin(*TRANSIENT) | (F.col("t.attempt") + 1 >= max_attempts))
    )

"""Videos with all their traces together."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from models.calibration.features import TRACE_FIELDS
from schemas.traces import TRANSIENT


def traced(
    traces: DataFrame, recipe_id: str, k: int, max_attempts: int, fields: Sequence[str] = TRACE_FIELDS
) -> DataFrame:
    """Videos whose K rollouts are all there for good: video_id, input_digest, ingested_on, traces (structs with
    rollout_index and these fields, by index)."""
    fields = [name for name in fields if name != "rollout_index"]
    latest = (
        traces.where((F.col("recipe_id") == recipe_id) & (F.col("rollout_index") < k))
        .groupBy("video_id", "input_digest", "ingested_on", "rollout_index")
        .agg(F.max_by(F.struct("attempt", *fields), "attempt").alias("t"))
        .where(~F.col("t.status").isin(*TRANSIENT) | (F.col("t.attempt") + 1 >= max_attempts))
    )
    trace = F.struct("rollout_index", *[F.col(f"t.{name}") for name in fields])
    by_index = "array_sort(traces, (a, b) -> a.rollout_index - b.rollout_index)"
    return (
        latest.groupBy("video_id", "input_digest", "ingested_on")
        .agg(F.collect_list(trace).alias("traces"))
        .where(F.size("traces") == k)
        .withColumn("traces", F.expr(by_index))
    )

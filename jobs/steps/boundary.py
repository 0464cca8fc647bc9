"""What a stage learns from is held against a contract before it learns: all of it is right, or nothing is learned."""

from __future__ import annotations

from collections import Counter

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime.errors import Doubted
from jobs.runtime.run import Run
from lake.audit import audit
from schemas.checks import Contract

_NAMES = 5  # ids in a message


def check(run: Run, stage: str, rows: DataFrame, contract: Contract, key: tuple[str, ...]) -> DataFrame:
    """The rows, in files, each with its video's split. Raises Doubted, with reasons and ids, where one is refused."""
    splits = run.lake.view("current_splits").where(F.col("task") == run.task).select("video_id", "split")
    path = run.path("checked")
    rows.join(splits, "video_id", "left").write.mode("overwrite").parquet(path)
    staged = run.lake.spark.read.parquet(path)
    found = audit(staged, contract, key)
    if not found.refused:
        return staged
    reasons = Counter[str]()
    for (_, reason), count in found.refused.items():
        reasons[reason] += count
    bad = found.judged.where("refused_reason IS NOT NULL").select("video_id", "refused_message")
    named = bad.orderBy("video_id").limit(_NAMES + 1).collect()
    ids = ", ".join(f"{row['video_id']} ({row['refused_message']})" for row in named[:_NAMES])
    raise Doubted(
        f"{stage}: {reasons.total():,} of {found.rows:,} rows break the contract of what it learns from "
        f"({', '.join(f'{count:,} {reason}' for reason, count in reasons.most_common())}): {ids}"
        f"{', ...' if len(named) > _NAMES else ''}; nothing was learned"
    )

"""Independent labels as (video, label) pairs, each a question of its own with two answers: it applies or it does not.

What is known of videos becomes what is known of pairs, in the same columns; `video_id` is then <label>/<video id>.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

ANSWERS = ("no", "yes")
_LEAST = 1e-12  # probability whose logarithm is still taken


def of_truth(truth: DataFrame, labels: tuple[str, ...]) -> DataFrame:
    """video_id, labels -> video_id, label."""
    return _pairs(truth, labels, ("video_id", "labels")).select(
        _id(), _answer(F.array_contains("labels", F.col("slug"))).alias("label")
    )


def of_traces(traces: DataFrame, labels: tuple[str, ...]) -> DataFrame:
    """video_id, status, labels, label_logprobs of traces -> video_id, status, label, label_logprobs."""
    rows = _pairs(traces, labels, ("video_id", "status", "labels", "label_logprobs"))
    logprob = F.least(F.col("label_logprobs")[F.col("slug")], F.lit(0.0))
    other = F.log(F.greatest(1 - F.exp(logprob), F.lit(_LEAST)))
    return rows.select(
        _id(),
        "status",
        _answer(F.array_contains("labels", F.col("slug"))).alias("label"),
        F.when(logprob.isNotNull(), F.create_map(F.lit("yes"), logprob, F.lit("no"), other)).alias("label_logprobs"),
    )


def of_scores(scores: DataFrame) -> DataFrame:
    """video_id, probs -> video_id, probs."""
    each = scores.select("video_id", F.explode("probs").alias("slug", "p"))
    return each.select(_id(), F.create_map(F.lit("yes"), F.col("p"), F.lit("no"), 1 - F.col("p")).alias("probs"))


def by_label(pairs: DataFrame) -> DataFrame:
    """The same with answers that name their label, so that figures can be told by label: yes is its slug."""
    slug = F.substring_index("video_id", "/", 1)

    def named(answer: Column) -> Column:
        return F.when(answer == "yes", slug).when(answer == "no", F.concat(F.lit("no "), slug))

    for name in ("label", "guess"):
        pairs = pairs.withColumn(name, named(F.col(name))) if name in pairs.columns else pairs
    if "probs" in pairs.columns:
        pairs = pairs.withColumn("probs", F.transform_keys("probs", lambda answer, _: named(answer)))
    return pairs


def _pairs(rows: DataFrame, labels: tuple[str, ...], columns: tuple[str, ...]) -> DataFrame:
    return rows.select(*columns, F.explode(F.array(*[F.lit(label) for label in labels])).alias("slug"))


def _id() -> Column:
    return F.concat("slug", F.lit("/"), "video_id").alias("video_id")


def _answer(applies: Column) -> Column:
    """yes or no; NULL where nothing is known."""
    return F.when(applies, "yes").when(~applies, "no")

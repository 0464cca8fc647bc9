"""From probabilities to decisions: what a rule (threshold, coverage) makes of a score."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from schemas.label_set import LabelSet

_TOLERANCE = 1e-12  # keeps 0.6 + 0.3 from falling short of 0.9, and 1 - 0.07 of 0.93


def most_probable_first(probs: Column) -> Column:
    """A map of probabilities as an array of structs (key, value); equal ones go by slug."""

    def order(a: Column, b: Column) -> Column:
        by_value = F.when(a["value"] > b["value"], -1).when(a["value"] < b["value"], 1)
        return by_value.when(a["key"] < b["key"], -1).otherwise(1)

    return F.array_sort(F.map_entries(probs), order)


def decide(scores: DataFrame, rule: dict[str, float], rule_id: str, labels: LabelSet) -> DataFrame:
    """Rows for the table decisions: labels or abstention, and the prediction set, from probabilities alone."""
    ranked = scores.withColumn("ranked", most_probable_first(F.col("probs")))
    judged = _independent(ranked, rule, labels) if labels.independent else _exclusive(ranked, rule)
    return judged.select(
        "video_id",
        "task",
        "scorer_id",
        "input_digest",
        F.lit(rule_id).alias("rule_id"),
        "label",
        "labels",
        "top_prob",
        "prediction_set",
        (F.col("reason") != "clear").alias("abstain"),
        "reason",
        F.current_timestamp().alias("decided_at"),
        "ingested_on",
    )


def _exclusive(ranked: DataFrame, rule: dict[str, float]) -> DataFrame:
    """The most probable label from the threshold on.

    The set holds the most probable labels until together they reach the coverage; equal probabilities go by slug.
    """
    before = F.expr(
        "transform(ranked, (entry, i) -> struct(entry.key AS key, "
        "aggregate(slice(ranked, 1, i), 0D, (sum, e) -> sum + e.value) AS before))"
    )
    chosen = F.expr(f"transform(filter(placed, p -> p.before < {rule['coverage']} - {_TOLERANCE}), p -> p.key)")
    clear = F.col("reason") == "clear"
    return (
        ranked.withColumn("placed", before)
        .withColumn("top_prob", F.expr("ranked[0].value"))
        .withColumn("reason", _reason(F.col("top_prob") < rule["threshold"]))
        .withColumn("label", F.when(clear, F.expr("ranked[0].key")))
        .withColumn("labels", F.when(clear, F.array("label")).otherwise(F.array().cast("array<string>")))
        .withColumn("prediction_set", chosen)
    )


def _independent(ranked: DataFrame, rule: dict[str, float], labels: LabelSet) -> DataFrame:
    """A label applies from the threshold on and is ruled out from 1 - threshold down; between them the rule abstains.

    The set holds what is not ruled out; the coverage has no meaning here, for the probabilities sum to nothing.
    """
    least = rule["threshold"] - _TOLERANCE  # of the likelier side
    slugs = F.array(*[F.lit(label) for label in labels.slugs])
    # Of 1/2 at the threshold 1/2 both is true: it applies.
    ruled_out = f"(1 - entry.value >= {least} AND entry.value < {least})"
    return (
        ranked.withColumn("top_prob", F.expr("array_min(transform(ranked, e -> greatest(e.value, 1 - e.value)))"))
        .withColumn("reason", _reason(F.col("top_prob") < least))
        .withColumn("label", F.lit(None).cast("string"))
        .withColumn(
            "labels", F.when(F.col("reason") == "clear", F.filter(slugs, lambda label: F.col("probs")[label] >= least))
        )
        .withColumn(
            "prediction_set",
            F.expr(f"transform(filter(ranked, entry -> NOT {ruled_out}), entry -> entry.key)"),
        )
    )


def _reason(below: Column) -> Column:
    """Why the rule abstains, or `clear`; below: whether too little speaks for what is most probable."""
    return F.when(F.col("rollouts_ok") == 0, "no_usable_trace").when(below, "below_threshold").otherwise("clear")

"""From probabilities to decisions: what a rule makes of a score.

A rule is plain JSON, whose digest is its id. coverage: of the prediction set. One of
    threshold                        least probability of the most probable label
    by: precision, at_least          the same for each label, such that those it is given to are right often enough
    by: cost, costs, review          right label -> label given -> cost; the label of least expected cost, if that is below
                                     the cost of a person's look
and perhaps
    sets: lac | aps, up_to           conformal sets: how strange each label may be, see models/calibration/conformal.py
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from schemas.label_set import LabelSet

Rule = dict[str, Any]
_TOLERANCE = 1e-12  # keeps 0.6 + 0.3 from falling short of 0.9, and 1 - 0.07 of 0.93


def most_probable_first(probs: Column) -> Column:
    """A map of probabilities as an array of structs (key, value); equal ones go by slug."""

    def order(a: Column, b: Column) -> Column:
        by_value = F.when(a["value"] > b["value"], -1).when(a["value"] < b["value"], 1)
        return by_value.when(a["key"] < b["key"], -1).otherwise(1)

    return F.array_sort(F.map_entries(probs), order)


def decide(scores: DataFrame, rule: Rule, rule_id: str, labels: LabelSet) -> DataFrame:
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
        "expected_cost",
        "prediction_set",
        (F.col("reason") != "clear").alias("abstain"),
        "reason",
        F.current_timestamp().alias("decided_at"),
        "ingested_on",
    )


def _exclusive(ranked: DataFrame, rule: Rule) -> DataFrame:
    """The most probable label, or the one that costs least, where the rule lets it pass."""
    top, top_prob = F.expr("ranked[0].key"), F.expr("ranked[0].value")
    chosen, cost, refused = top, F.lit(None).cast("double"), "below_threshold"
    if rule.get("by") == "cost":
        cheapest = _cheapest(rule["costs"])
        chosen, cost, refused = cheapest["label"], cheapest["cost"], "review_is_cheaper"
        fails = cost > rule["review"] + _TOLERANCE
    elif rule.get("by") == "precision":
        fails = top_prob < _map(rule["at_least"])[top]
    else:
        fails = top_prob < rule["threshold"]
    clear = F.col("reason") == "clear"
    return (
        ranked.withColumn("prediction_set", _set(rule))
        .withColumn("top_prob", top_prob)
        .withColumn("expected_cost", cost)
        .withColumn("reason", _reason(fails, refused))
        .withColumn("label", F.when(clear, chosen))
        .withColumn("labels", F.when(clear, F.array("label")).otherwise(F.array().cast("array<string>")))
    )


def _cheapest(costs: Mapping[str, Mapping[str, float]]) -> Column:
    """(cost, label) of the label that costs least on average over which one is right; equal ones go by slug."""
    probs = F.col("probs")
    means = [
        F.struct(
            reduce(add, [probs[right] * costs[right][named] for right in costs]).alias("cost"),
            F.lit(named).alias("label"),
        )
        for named in costs
    ]
    return F.array_sort(F.array(*means))[0]


def _set(rule: Rule) -> Column:
    """The prediction set, in the order of probability.

    By mass: the most probable labels until together they reach the coverage. Conformal: those that are not too strange, the
    most probable one always.
    """
    mass = "aggregate(slice(ranked, 1, i), 0D, (sum, e) -> sum + e.value)"  # of those before the i-th
    placed = F.expr(
        f"transform(ranked, (e, i) -> struct(e.key AS key, e.value AS value, i AS place, {mass} AS before))"
    )

    def inside(each: Column) -> Column:
        if rule.get("sets") is None:
            return each["before"] < rule["coverage"] - _TOLERANCE
        strange = 1 - each["value"] if rule["sets"] == "lac" else each["before"] + each["value"]
        return (each["place"] == 0) | (strange <= _map(rule["up_to"])[each["key"]] + _TOLERANCE)

    return F.transform(F.filter(placed, inside), lambda each: each["key"])


def _map(values: Mapping[str, float]) -> Column:
    return F.create_map(*[F.lit(part) for pair in values.items() for part in pair])


def _independent(ranked: DataFrame, rule: Rule, labels: LabelSet) -> DataFrame:
    """A label applies from the threshold on and is ruled out from 1 - threshold down; between them the rule abstains.

    The set holds what is not ruled out; the coverage has no meaning here, for the probabilities sum to nothing.
    """
    least = rule["threshold"] - _TOLERANCE  # of the likelier side
    slugs = F.array(*[F.lit(label) for label in labels.slugs])
    # Of 1/2 at the threshold 1/2 both is true: it applies.
    ruled_out = f"(1 - entry.value >= {least} AND entry.value < {least})"
    return (
        ranked.withColumn("top_prob", F.expr("array_min(transform(ranked, e -> greatest(e.value, 1 - e.value)))"))
        .withColumn("expected_cost", F.lit(None).cast("double"))
        .withColumn("reason", _reason(F.col("top_prob") < least, "below_threshold"))
        .withColumn("label", F.lit(None).cast("string"))
        .withColumn(
            "labels", F.when(F.col("reason") == "clear", F.filter(slugs, lambda label: F.col("probs")[label] >= least))
        )
        .withColumn(
            "prediction_set",
            F.expr(f"transform(filter(ranked, entry -> NOT {ruled_out}), entry -> entry.key)"),
        )
    )


def _reason(fails: Column, refused: str) -> Column:
    """Why the rule abstains, or `clear`; fails: whether it does not let the label pass, and what that is called."""
    return F.when(F.col("rollouts_ok") == 0, "no_usable_trace").when(fails, refused).otherwise("clear")

"""From traces to scores to decisions: the transforms that score, nightly and backfill share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.settings import Decide
from jobs import staging
from jobs.run import Run
from models import identity
from models.features import TRACE_FIELDS
from schemas.decisions import DECISIONS
from schemas.quarantine import QUARANTINE
from schemas.scorers import SCORERS
from schemas.scores import SCORES
from schemas.traces import TRACES, TRANSIENT
from udfs.score import SCORE_COLUMNS, score


@dataclass(frozen=True)
class Scorer:
    """A calibrator with the traces it looks at; `id` names all of it, `rule` what is made of its probabilities."""

    id: str
    json: dict[str, Any]
    manifest: dict[str, Any]
    rule: dict[str, float]
    rule_id: str


def of_manifest(manifest: dict[str, Any], decide: Decide) -> Scorer:
    """The scorer of a registered calibrator under a decision rule."""
    value = identity.scorer(
        recipes=[manifest["recipe_id"]],
        rollouts=manifest["rollouts"],
        calibrator=manifest["calibrator"],
        calibration=manifest["calibration"],
    )
    rule = {"threshold": decide.threshold, "coverage": decide.coverage}
    return Scorer(identity.digest(value), value, manifest, rule, identity.digest(rule))


def traced(traces: DataFrame, recipe_id: str, k: int, max_attempts: int) -> DataFrame:
    """Videos whose K rollouts are all there for good: video_id, traces (array of structs, by rollout index)."""
    fields = [name for name in TRACE_FIELDS if name != "rollout_index"]
    latest = (
        traces.where((F.col("recipe_id") == recipe_id) & (F.col("rollout_index") < k))
        .groupBy("video_id", "rollout_index")
        .agg(F.max_by(F.struct("attempt", *fields), "attempt").alias("t"))
        .where(~F.col("t.status").isin(*TRANSIENT) | (F.col("t.attempt") + 1 >= max_attempts))
    )
    trace = F.struct("rollout_index", *[F.col(f"t.{name}") for name in fields])
    by_index = "array_sort(traces, (a, b) -> a.rollout_index - b.rollout_index)"
    return (
        latest.groupBy("video_id")
        .agg(F.collect_list(trace).alias("traces"))
        .where(F.size("traces") == k)
        .withColumn("traces", F.expr(by_index))
    )


def decide(scores: DataFrame, rule: dict[str, float], rule_id: str) -> DataFrame:
    """Rows for the table decisions: label or abstention, and the prediction set, from probabilities alone.

    The set holds the most probable labels until together they reach the coverage; equal probabilities go by slug.
    """
    ranked = F.expr(
        "array_sort(map_entries(probs), (a, b) -> CASE WHEN a.value > b.value THEN -1 WHEN a.value < b.value THEN 1 "
        "WHEN a.key < b.key THEN -1 ELSE 1 END)"
    )
    before = F.expr(
        "transform(ranked, (entry, i) -> struct(entry.key AS key, "
        "aggregate(slice(ranked, 1, i), 0D, (sum, e) -> sum + e.value) AS before))"
    )
    # The tolerance keeps 0.6 + 0.3 from falling short of 0.9.
    chosen = F.expr(f"transform(filter(placed, p -> p.before < {rule['coverage']} - 1e-12), p -> p.key)")
    reason: Column = (
        F.when(F.col("rollouts_ok") == 0, "no_usable_trace")
        .when(F.col("top_prob") < rule["threshold"], "below_threshold")
        .otherwise("clear")
    )
    return (
        scores.withColumn("ranked", ranked)
        .withColumn("placed", before)
        .withColumn("top_prob", F.expr("ranked[0].value"))
        .withColumn("reason", reason)
        .select(
            "video_id",
            "task",
            "scorer_id",
            F.lit(rule_id).alias("rule_id"),
            F.when(F.col("reason") == "clear", F.expr("ranked[0].key")).alias("label"),
            "top_prob",
            chosen.alias("prediction_set"),
            (F.col("reason") != "clear").alias("abstain"),
            "reason",
            F.current_timestamp().alias("decided_at"),
        )
    )


def score_all(run: Run, scorer: Scorer, scope: DataFrame) -> None:
    """Score what has its traces but no score, then decide every score that the rule has not seen. Never runs the model."""
    run.register(SCORERS, scorer.id, scorer.json)
    run.versions |= {
        "recipe_id": scorer.manifest["recipe_id"],
        "scorer_id": scorer.id,
        "calibrator_id": scorer.manifest["calibrator_id"],
        "rule_id": scorer.rule_id,
    }
    run.add({"rollouts": 0, "engines": 0, "scores": 0, "decisions": 0})
    _score(run, scorer, scope)
    _decide(run, scorer)


def unscored(run: Run, scorer: Scorer, scope: DataFrame) -> DataFrame:
    """Videos in scope with all their traces and without a score: video_id, traces."""
    ready = traced(
        run.read(TRACES), scorer.manifest["recipe_id"], scorer.manifest["rollouts"], run.settings.waves.max_attempts
    )
    scored = run.read(SCORES).where(F.col("scorer_id") == scorer.id).select("video_id")
    refused = refused_ids(run.read(QUARANTINE), "scores")
    return (
        ready.join(scope.select("video_id"), "video_id", "left_semi")
        .join(scored, "video_id", "left_anti")
        .withColumn("row_key", F.concat_ws("/", "video_id", F.lit(scorer.id)))
        .join(refused, "row_key", "left_anti")
        .drop("row_key")
    )


def refused_ids(quarantine: DataFrame, table: str) -> DataFrame:
    """Keys of the rows of one table that its contract refused."""
    return quarantine.where(F.col("table") == table).select("row_key").distinct()


def _score(run: Run, scorer: Scorer, scope: DataFrame) -> None:
    todo = unscored(run, scorer, scope)
    waiting = todo.count()
    if not waiting:
        run.say("no video waits for a score")
        return
    if run.budget.max_videos is not None and run.budget.max_videos < waiting:
        run.deferred = True
        todo = todo.limit(run.budget.max_videos)
    folder = run.registry.folder(run.task, scorer.manifest["calibrator_id"])

    def write(wave: staging.Wave) -> staging.Manifest:
        made = todo.mapInArrow(score(folder), from_arrow_schema(SCORE_COLUMNS))
        rows = (
            made.withColumn("task", F.lit(run.task))
            .withColumn("scorer_id", F.lit(scorer.id))
            .withColumn("scored_at", F.current_timestamp())
        )
        output = staging.stage(run.spark, wave, SCORES, rows, f"scores/{scorer.id}")
        return run.manifest(wave, [output], {"scores": output.rows})

    settled = staging.commit(run.spark, run.next_wave(), write)
    landed = settled.landed["scores"]
    run.add({"scores": landed.rows, "scores_refused": settled.refused["scores"], "collisions": landed.collisions})
    run.say(f"{landed.rows:,} videos scored")


def _decide(run: Run, scorer: Scorer) -> None:
    decided = run.read(DECISIONS).where((F.col("scorer_id") == scorer.id) & (F.col("rule_id") == scorer.rule_id))
    todo = (
        run.read(SCORES)
        .where(F.col("scorer_id") == scorer.id)
        .join(decided.select("video_id"), "video_id", "left_anti")
    )
    if todo.isEmpty():
        return

    def write(wave: staging.Wave) -> staging.Manifest:
        rows = decide(todo, scorer.rule, scorer.rule_id)
        output = staging.stage(run.spark, wave, DECISIONS, rows, f"decisions/{scorer.id}/{scorer.rule_id}")
        return run.manifest(wave, [output], {"decisions": output.rows})

    settled = staging.commit(run.spark, run.next_wave(), write)
    landed = settled.landed["decisions"]
    run.add({"decisions": landed.rows, "collisions": landed.collisions})

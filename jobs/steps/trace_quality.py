"""The table trace_quality: how good traces are in themselves, of the videos of a scope."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import facets, recipes
from jobs.steps.recipes import Recipe
from jobs.steps.scope import KEY, Scope
from lake.staging import Wave
from lake.waves import Work
from lake.write import stage
from models.identity import digest
from models.language.codes import yes_no
from models.language.prompts import argues_question, next_turn
from models.language.rule import code_of
from schemas.trace_quality import TRACE_QUALITY
from udfs.trace_quality import QUALITY_COLUMNS, Judge, judge_traces

_FIELDS = (
    "rollout_index",
    "attempt",
    "status",
    "labels",
    "text",
    "observation",
    "think",
    "label_logprobs",
    "logprob_sum",
    "tokens",
)


def check(run: Run, by_model: bool) -> None:
    """Raises UsageError for a rule that is not there, and where the model cannot judge."""
    rule = run.settings.labels.rule
    if by_model and (rule or run.label_set.independent):
        raise UsageError(
            f"--judge: the task {run.task} has {'a rule of its own' if rule else 'independent labels'}: leave it out"
        )
    recipes.check_rule(run.settings.labels)


@dataclass(frozen=True)
class Judgement:
    """Who judges traces. by: rule, model or nobody; id: the same with what it judges by, as it is now."""

    by: str
    id: str


def judged_by(run: Run, by_model: bool) -> Judgement:
    """Who judges under these settings: the task's own rule, as its code is now, or the model where it is asked."""
    rule, seen = run.settings.labels.rule, run.settings.evaluate.observation
    by = "rule" if rule else "model" if by_model else "nobody"
    return Judgement(by, digest([by, code_of(rule) if rule else "", seen or ""]))


def judge(run: Run, recipe: Recipe, k: int, scope: Scope, who: Judgement) -> None:
    """Judge the traces of a recipe that this judge has not seen yet.

    How far a trace is from its siblings is as of the first k that it was judged with.
    """
    settings = run.settings
    traces = scope.of(run.lake.view("current_traces")).where(
        (F.col("recipe_id") == recipe.id) & (F.col("rollout_index") < k)
    )
    known = scope.of(run.lake.read(TRACE_QUALITY)).where(
        (F.col("recipe_id") == recipe.id) & (F.col("judge_id") == who.id)
    )
    key = [*KEY, "rollout_index", "attempt"]
    new = traces.join(known.select(*key), key, "left_anti").select(*KEY).distinct()
    name = settings.evaluate.observation
    seen = facets.values(run, name) if name else run.lake.spark.createDataFrame([], "video_id string, value string")
    # Siblings are judged together, also those that were judged before.
    todo = (
        traces.join(new, list(KEY), "left_semi")
        .groupBy(*KEY, "ingested_on")
        .agg(F.collect_list(F.struct(*_FIELDS)).alias("traces"))
        .withColumn("traces", F.expr("array_sort(traces, (a, b) -> a.rollout_index - b.rollout_index)"))
        .join(seen.groupBy("video_id").agg(F.min("value").alias("observation")), "video_id", "left")
    )
    if todo.isEmpty():
        return
    asked = _judge(run, recipe) if who.by == "model" else None
    rows = todo.coalesce(settings.engine.per_cluster) if asked else todo
    facts = {
        "judge_id": F.lit(who.id),
        "task": F.lit(run.task),
        "recipe_id": F.lit(recipe.id),
        "judged_at": F.current_timestamp(),
    }

    def write(wave: Wave) -> Work:
        judged = judge_traces(settings.labels.rule, asked)
        by_rule = rows.mapInArrow(judged, from_arrow_schema(QUALITY_COLUMNS))
        with run.engines.mapped(rows, judged, QUALITY_COLUMNS) if asked else nullcontext(by_rule) as made:
            return [stage(wave, TRACE_QUALITY, made.withColumns(facts))], {}

    landed = run.waves.make(write, run.record.versions).landed[TRACE_QUALITY.name]
    run.record.add({"traces_judged": landed.rows})


def _judge(run: Run, recipe: Recipe) -> Judge:
    from transformers import AutoProcessor  # takes seconds to import, and few runs need it

    processor = AutoProcessor.from_pretrained(recipe.model_path, local_files_only=True)
    codes = yes_no(processor.tokenizer)
    tails = {
        label: next_turn(processor, argues_question(label, policy, codes))
        for label, policy in run.settings.labels.labels.items()
    }
    plan = recipes.plan(recipe, run.settings)
    return Judge(plan.engine, tails, codes, plan.adapter)

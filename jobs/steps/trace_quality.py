"""The table trace_quality: how good traces are in themselves, of the videos of a scope."""

from __future__ import annotations

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
from models.language.codes import yes_no
from models.language.prompts import argues_question, next_turn
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


def judge(run: Run, recipe: Recipe, k: int, scope: Scope, by_model: bool) -> str:
    """Judge the traces of a recipe that are not judged yet, and say who did: rule, model or nobody.

    by_model: the model is asked what their thinking argues for. How far a trace is from its siblings is as of the first k
    that it was judged with.
    """
    settings = run.settings
    rule = settings.labels.rule
    who = "rule" if rule else "model" if by_model else "nobody"
    traces = scope.of(run.lake.view("current_traces")).where(
        (F.col("recipe_id") == recipe.id) & (F.col("rollout_index") < k)
    )
    known = scope.of(run.lake.read(TRACE_QUALITY)).where(
        (F.col("recipe_id") == recipe.id) & (F.col("judged_by") == who)
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
        return who
    asked = _judge(run, recipe) if who == "model" else None
    rows = todo.coalesce(settings.engine.per_cluster) if asked else todo
    facts = {"task": F.lit(run.task), "recipe_id": F.lit(recipe.id), "judged_at": F.current_timestamp()}

    def write(wave: Wave) -> Work:
        made = rows.mapInArrow(judge_traces(rule, asked), from_arrow_schema(QUALITY_COLUMNS))
        return [stage(wave, TRACE_QUALITY, made.withColumns(facts))], {}

    landed = run.waves.make(write, run.record.versions).landed[TRACE_QUALITY.name]
    run.record.add({"traces_judged": landed.rows})
    return who


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

"""From traces to scores to decisions, for the videos of a scope. Runs the calibrator and, where its scorer has traces
reviewed, the model that does."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.runtime.run import Run
from jobs.steps.deciding import decide
from jobs.steps.rollouts import refused_keys, roll_out
from jobs.steps.scope import KEY, Scope, parts
from jobs.steps.scorers import Scorer, decided_by
from jobs.steps.traced import so_far, traced
from lake.staging import Wave
from lake.waves import Work
from lake.write import stage
from schemas.decisions import DECISIONS
from schemas.quarantine import QUARANTINE
from schemas.scorers import SCORERS
from schemas.scores import SCORES
from schemas.table import Table
from schemas.traces import TRACES
from udfs.calibrator import SCORE_COLUMNS, open_calibrator, score

_VIDEOS_PER_WAVE = 50_000


def waiting(run: Run, scorer: Scorer, scope: Scope, traces: DataFrame, fields: Sequence[str]) -> DataFrame:
    """Videos in scope with all their traces among these and without a score: video_id, ingested_on, traces (fields). Of a
    scorer that is adaptive those with any, for whether they are enough is its calibrator's business."""
    attempts = run.settings.waves.max_attempts
    steps = [(recipe.id, k) for recipe, k in scorer.looks_at]
    mine = scope.of(traces.where(F.col("recipe_id").isin(*{recipe_id for recipe_id, _ in steps})))
    ready = (so_far if scorer.is_adaptive else traced)(mine, steps, attempts, fields)
    refused = scope.since(run.lake.read(QUARANTINE), "refused_at")
    scored = scope.within(run.lake.read(SCORES).where(F.col("scorer_id") == scorer.id)).select(*KEY)
    return (
        ready.join(scored, list(KEY), "left_anti")
        .withColumn("row_key", F.concat_ws("/", "video_id", F.lit(scorer.id), "input_digest"))
        .join(refused_keys(refused, SCORES.name), "row_key", "left_anti")
        .drop("row_key")
    )


def undecided(run: Run, scorer: Scorer, scope: Scope, scores: DataFrame) -> DataFrame:
    """Those of these scores that are of the scope and that the scorer's rule has not seen."""
    decided = scope.within(decided_by(run, scorer)).select(*KEY)
    scores = scope.of(scores.where(F.col("scorer_id") == scorer.id))
    return scores.join(decided, list(KEY), "left_anti")


def register(run: Run, scorer: Scorer) -> None:
    """Note what a scorer's id stands for; from here on the run's rows name its versions."""
    run.register(SCORERS, scorer.id, scorer.json)
    run.record.versions |= scorer.versions
    run.record.add({"rollouts": 0, "engines": 0, "scores": 0, "decisions": 0})


def score_all(run: Run, scorer: Scorer, scope: Scope) -> None:
    """Review and score what has its traces but no score, and decide every score that the rule has not seen, in waves, oldest
    first."""
    register(run, scorer)
    review(run, scorer, scope)
    score_parts(run, scorer, scope)


def review(run: Run, scorer: Scorer, scope: Scope) -> None:
    """The rollouts that a scorer takes beside the traces themselves, of those videos whose traces are there."""
    for recipe in scorer.recipes[1:]:
        roll_out(run, recipe, scorer.rollouts, scope)


def score_parts(run: Run, scorer: Scorer, scope: Scope, files: Sequence[str] | None = None) -> None:
    """The same for a registered scorer.

    files: of traces, those to look into: a wave's videos are scored from what it has just published, without a look at all
    that the same day brought. None: the folders of the scope's days.
    """
    for part in parts(run, f"score-{scorer.id}", scope, _VIDEOS_PER_WAVE):
        if not run.budget.allows(0):
            run.record.deferred = True
            run.record.say("the deadline is over: the rest stays for the next run")
            return
        run.waves.must_be_open(SCORES, DECISIONS)
        made = _score(run, scorer, part, _rows(run, TRACES, files))
        _decide(run, scorer, part, _rows(run, SCORES, None if files is None else made))


def _rows(run: Run, table: Table, files: Sequence[str] | None) -> DataFrame:
    return run.lake.read(table) if files is None else run.lake.read_files(table, files)


def _score(run: Run, scorer: Scorer, scope: Scope, traces: DataFrame) -> Sequence[str]:
    """One wave of scores; returns the files that it published."""
    planned_at = run.lake.version(SCORES)
    folder = run.lake.registry.folder(run.task, scorer.manifest["calibrator_id"])
    calibrator = open_calibrator(folder)  # what is wrong with it is told here, not by every worker
    todo = waiting(run, scorer, scope, traces, calibrator.spec.reads)
    if todo.isEmpty():
        return ()
    known = {"task": F.lit(run.task), "scorer_id": F.lit(scorer.id), "scored_at": F.current_timestamp()}
    made = todo.mapInArrow(score(folder), from_arrow_schema(SCORE_COLUMNS))
    if scorer.is_adaptive:  # perhaps none of them has enough
        path = run.path(f"enough-{scorer.id}")
        made.write.mode("overwrite").parquet(path)
        made = run.lake.spark.read.parquet(path)
        if made.isEmpty():
            return ()

    def write(wave: Wave) -> Work:
        return [stage(wave, SCORES, made.withColumns(known), planned_at)], {}

    settled = run.waves.make(write, run.record.versions)
    landed = settled.landed[SCORES.name]
    refused = settled.refused(SCORES)
    run.record.add({"scores": landed.rows, "scores_refused": refused, "collisions": landed.collisions})
    run.record.say(f"{landed.rows:,} videos scored")
    return landed.files


def _decide(run: Run, scorer: Scorer, scope: Scope, scores: DataFrame) -> None:
    planned_at = run.lake.version(DECISIONS)
    todo = undecided(run, scorer, scope, scores)
    if todo.isEmpty():
        return

    def write(wave: Wave) -> Work:
        return [stage(wave, DECISIONS, decide(todo, scorer.rule, scorer.rule_id, run.label_set), planned_at)], {}

    landed = run.waves.make(write, run.record.versions).landed[DECISIONS.name]
    run.record.add({"decisions": landed.rows, "collisions": landed.collisions})

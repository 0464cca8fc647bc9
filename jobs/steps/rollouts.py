"""Rollouts of a scope: what is missing, cut into waves, made by engines inside the Spark workers, published one by one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.runtime import session
from jobs.runtime.errors import EnginesDie, UsageError, worker_lost
from jobs.runtime.progress import Watch, clock
from jobs.runtime.run import Run
from jobs.steps import recipes
from jobs.steps.recipes import Recipe
from jobs.steps.scope import COLUMNS, KEY, Scope, cut, fix, oldest
from jobs.steps.traced import traced
from lake.staging import Staged, Wave
from lake.waves import Work
from lake.write import stage
from models.engines.reviews import ReviewPlan
from models.engines.rollouts import Plan
from models.language.review import SAID
from schemas.files import FILES
from schemas.quarantine import QUARANTINE
from schemas.recipes import RECIPES
from schemas.runs import RUNS
from schemas.traces import STATUSES, TRACES, TRANSIENT
from udfs.progress import TaskProgress, engines
from udfs.rollout import TRACE_COLUMNS, rollout

_RATE_OVER_WAVES = 20
_MOST_CULPRITS = 3  # one after the other, which is no chance any more
_USUALLY_OK = 0.5  # a smaller share of usable traces is said aloud


# What follows a wave: called with its videos and with the files of the table traces that it published.
Then = Callable[[Scope, Sequence[str]], None]


def pending(
    videos: DataFrame, traces: DataFrame, refused: DataFrame, recipe_id: str, k: int, max_attempts: int
) -> DataFrame:
    """What is missing: the columns of `videos`, `missing` (rollout indices) and `attempt`.

    Going from k to more adds only the new indices. A rollout that failed for a passing reason is tried again, up to
    max_attempts in all; one whose row_key is in `refused` is not.
    """
    wanted = videos.select(*KEY, F.explode(F.sequence(F.lit(0), F.lit(k - 1))).alias("rollout_index"))
    tried = (
        traces.where((F.col("recipe_id") == recipe_id) & (F.col("rollout_index") < k))
        .groupBy(*KEY, "rollout_index")
        .agg(F.max("attempt").alias("last"), F.max_by("status", "attempt").alias("status"))
    )
    again = F.col("status").isin(*TRANSIENT) & (F.col("last") + 1 < max_attempts)
    key = F.concat_ws("/", "video_id", F.lit(recipe_id), "input_digest", "rollout_index", "attempt")
    return (
        wanted.join(tried, [*KEY, "rollout_index"], "left")
        .where(F.col("last").isNull() | again)
        .withColumn("attempt", F.coalesce(F.col("last") + 1, F.lit(0)))
        .withColumn("row_key", key)
        .join(refused, "row_key", "left_anti")
        .groupBy(*KEY, "attempt")
        .agg(F.array_sort(F.collect_list("rollout_index")).alias("missing"))
        .join(videos, list(KEY))
    )


def refused_keys(quarantine: DataFrame, table: str) -> DataFrame:
    """row_key of the rows of one table that its contract refused."""
    return quarantine.where(F.col("table") == table).select("row_key").distinct()


def missing(run: Run, recipe: Recipe, k: int, scope: Scope) -> DataFrame:
    """`pending`, as the lake is now; of reviews those whose traces are all there."""
    traces = scope.of(run.lake.read(TRACES).where(F.col("recipe_id") == recipe.id))
    refused = refused_keys(scope.since(run.lake.read(QUARANTINE), "refused_at"), TRACES.name)
    rows = pending(scope.videos, traces, refused, recipe.id, k, run.settings.waves.max_attempts)
    return with_reviewed(run, recipe, k, scope, rows).drop("traces") if recipe.reviewed else rows


def with_reviewed(run: Run, recipe: Recipe, k: int, scope: Scope, rows: DataFrame) -> DataFrame:
    """Adds the traces that a recipe of reviews is about; rows of videos that do not have all of them yet are left out."""
    reviewed = str(recipe.reviewed)
    traces = scope.of(run.lake.read(TRACES).where(F.col("recipe_id") == reviewed))
    whole = traced(traces, [(reviewed, k)], run.settings.waves.max_attempts, SAID)
    return rows.join(whole.select(*KEY, "traces"), list(KEY))


def by_other_names(rows: DataFrame, files: DataFrame) -> DataFrame:
    """`pending` rows with, of a video that is tried again, the next one of its names as `uri`, its first one in its turn:
    where the same bytes lie under several names, one of them may still be there. files: rows of that table."""
    again = rows.where("attempt > 0").select("video_id", F.col("uri").alias("first")).distinct()
    ever = files.join(F.broadcast(again), "video_id", "left_semi").select("uri").distinct()
    newest = (
        files.join(F.broadcast(ever), "uri", "left_semi")
        .groupBy("uri")
        .agg(F.max_by("video_id", "seen_at").alias("video_id"))
    )
    others = (
        newest.join(again, "video_id")
        .where("uri <> first")
        .groupBy("video_id", "first")
        .agg(F.array_sort(F.collect_set("uri")).alias("others"))
        .select("video_id", F.concat(F.array("first"), "others").alias("names"))
    )
    other = F.when(F.col("attempt") > 0, F.expr("names[attempt % size(names)]"))
    return rows.join(others, "video_id", "left").withColumn("uri", F.coalesce(other, "uri")).drop("names")


def trace_rows(made: DataFrame, task: str, recipe_id: str) -> DataFrame:
    """Columns of the udf -> rows for the table traces."""
    known = {"task": F.lit(task), "recipe_id": F.lit(recipe_id), "created_at": F.current_timestamp()}
    return made.withColumns(known)


@dataclass(frozen=True)
class Todo:
    """Rollouts that a scope lacks, as of a version of the table traces: columns as `pending`, and how many there are."""

    recipe: Recipe
    k: int
    rows: DataFrame
    videos: int
    rollouts: int
    planned_at: int


def plan(run: Run, recipe: Recipe, k: int, scope: Scope) -> Todo:
    """What there is to do, kept in a file of the run's own."""
    planned_at = run.lake.version(TRACES)  # before looking what is there
    path = run.path(f"plan-{recipe.id}")
    missing(run, recipe, k, scope).write.mode("overwrite").parquet(path)
    rows = run.lake.spark.read.parquet(path)
    videos, rollouts = rows.agg(F.count_distinct("video_id"), F.sum(F.size("missing"))).collect()[0]
    return Todo(recipe, k, rows, videos, rollouts or 0, planned_at)


def roll_out(
    run: Run, recipe: Recipe, k: int, scope: Scope, then: Then | None = None, later: Sequence[Recipe] = ()
) -> None:
    """Make the missing rollouts of a scope. Starts no engine if none is missing.

    then: called with the videos of each wave once its traces are published, and the files with these; later: what it rolls
    out of them, whose models are checked before the first wave is made. Raises EnginesDie.
    """
    if recipe.imported:
        raise UsageError(
            f"recipe {recipe.id}: its traces are {recipe.json['by']}'s, and no model here writes more of them: "
            "`deepintuit import-traces` takes some in, `deepintuit score` scores them"
        )
    what = _what(recipe)
    run.record.versions["review_recipe_id" if recipe.reviewed else "recipe_id"] = recipe.id
    run.record.add({f"{what}_pending": 0, what: 0, "engines": 0})
    if not scope.count:
        run.record.say(f"no {what} to make, there is no video in scope; no engine was started")
        return
    todo = plan(run, recipe, k, scope)
    run.record.add({f"{what}_pending": todo.rollouts})
    if todo.videos:
        run.waves.must_be_open(TRACES)
        session.check_slots(run.lake.spark.sparkContext.getConf(), run.settings.engine.gpus)
        for each in (recipe, *later):
            recipes.check_model(each)
        recipes.check_served(recipe, run.settings)
        run.register(RECIPES, recipe.id, recipe.json)
        _make_waves(run, _within_budget(run, todo), then)
    else:
        run.record.say(f"no {what} to make, all {scope.count:,} videos in scope have theirs; no engine was started")


def _within_budget(run: Run, todo: Todo) -> Todo:
    """As many videos of it as the run may take on, those that have waited longest."""
    most = run.budget.max_videos
    if most is None or most >= todo.videos:
        return todo
    run.record.deferred = True
    chosen = oldest(todo.rows.select("video_id", "ingested_at").distinct(), most)
    rows = todo.rows.join(chosen.select("video_id"), "video_id", "left_semi")
    return replace(todo, rows=rows, videos=most, rollouts=todo.rollouts * most // todo.videos)


def _make_waves(run: Run, todo: Todo, then: Then | None) -> None:
    """Cut the work into waves and make one after the other, oldest videos first, until the deadline."""
    rate = measured_rate(run, todo.recipe) or run.settings.waves.first_rate
    seconds = todo.rollouts / rate
    number = wave_count(seconds, run.settings.waves.seconds, run.budget.seconds_left())
    run.record.say(
        f"{todo.videos:,} videos lack {todo.rollouts:,} {_what(todo.recipe)} of recipe {todo.recipe.id}: {number} waves, "
        f"about {clock(seconds)} at {rate:.1f} {_what(todo.recipe)}/s"
    )
    began, done, wave_seconds = time.monotonic(), 0, seconds / number
    for index, rows in enumerate(cut(run, f"waves-{todo.recipe.id}", todo.rows, number)):
        if not run.budget.allows(wave_seconds):
            run.record.deferred = True
            run.record.say(f"stopping before the deadline: {todo.videos - done:,} videos stay for the next run")
            return
        wave_began = time.monotonic()
        scope = fix(run, f"wave-{todo.recipe.id}", rows.select(*COLUMNS).distinct())
        todo, files = _make_wave(run, todo, rows, scope, done)
        if then:
            then(scope, files)
        done, wave_seconds = done + scope.count, time.monotonic() - wave_began
        if done < todo.videos:
            left = clock((time.monotonic() - began) / done * (todo.videos - done))
            run.record.say(
                f"wave {index + 1} of {number} is published: {done:,} of {todo.videos:,} videos, about {left} left"
            )


def wave_count(seconds: float, target: float, left: float | None) -> int:
    """Into how many waves work of so many seconds is cut, aiming at `target` seconds each.

    left: seconds before the deadline, of which a wave takes half at most, so that at least one is done.
    """
    length = target if left is None else min(target, max(left / 2, target / 10))
    return max(1, math.ceil(seconds / length))


def _make_wave(run: Run, todo: Todo, rows: DataFrame, scope: Scope, done: int) -> tuple[Todo, Sequence[str]]:
    """One wave of rollouts: the only stage that runs the model.

    Returns the plan, as of later where nobody else has published since, and the files that this wave published.
    """
    recipe, culprits = todo.recipe, list[str]()
    quiet_to = run.lake.quiet_since(TRACES, todo.planned_at, run.record.run_id, recipe_id=recipe.id)
    if quiet_to is None:  # some of this wave may be there by now, and some of any later one
        looked_at = run.lake.version(TRACES)
        rows = missing(run, recipe, todo.k, scope)
    else:
        todo, looked_at = replace(todo, planned_at=quiet_to), quiet_to
    if rows.isEmpty():
        return todo, ()

    def write(wave: Wave) -> Work:
        task = TaskProgress(wave.path("progress"))
        plan = replace(
            (recipes.review_plan if recipe.reviewed else recipes.plan)(recipe, run.settings),
            on_progress=task,
            on_end=task.ended,
            on_engine_start=task.engine_started,
        )
        # Fixed before the model runs, so that a half of it stays the same half.
        asked = with_reviewed(run, recipe, todo.k, scope, rows) if recipe.reviewed else rows
        if not rows.where("attempt > 0").isEmpty():
            asked = by_other_names(asked, run.lake.read(FILES))
        asked.write.parquet(wave.path("todo"))
        fixed = run.lake.spark.read.parquet(wave.path("todo"))
        with Watch(run.record, task.folder, done, todo.videos, "starting engines"):
            made = merged(_make(run, wave, recipe, plan, fixed, culprits))
        counts = _figures(run.lake.read_files(TRACES, [file.name for file in made.files]), recipe)
        return [replace(made, missing_at=looked_at)], counts | {"engines": engines(task.folder)}

    settled = run.waves.make(write, run.record.versions, rated=not recipe.is_trial)
    landed = settled.landed[TRACES.name]
    run.record.add({name: count for name, count in settled.counts.items() if name != "videos"})
    run.record.add(
        {
            "reviews_published" if recipe.reviewed else "traces": landed.rows,
            "traces_quarantined": settled.refused(TRACES),
            "collisions": landed.collisions,
        }
    )
    if len(culprits) == _MOST_CULPRITS:
        raise EnginesDie(
            f"engines died over {', '.join(culprits)} one after the other: look at the machines, and at the engines' own "
            f"words in {session.log_file()} or in the logs of the executors. These videos have a failed attempt, the rest "
            "is pending"
        )
    return todo, landed.files


def _what(recipe: Recipe) -> str:
    """What its rows are called in counts and in what is said."""
    return "reviews" if recipe.reviewed else "rollouts"


def _figures(traces: DataFrame, recipe: Recipe) -> dict[str, int]:
    """rollouts (or reviews), videos, tokens and the number of traces of every status, from staged rows."""
    of = "review_status" if recipe.reviewed else "status"
    by_status = [F.count_if(F.col("status") == status).alias(f"{of}_{status}") for status in STATUSES]
    sums = (
        F.count("*").alias(_what(recipe)),
        F.sum("tokens").alias("tokens"),
        F.count_distinct("video_id").alias("videos"),
    )
    return {name: count or 0 for name, count in traces.agg(*sums, *by_status).collect()[0].asDict().items()}


def merged(parts: list[Staged]) -> Staged:
    """Rows for one table that were staged in several goes."""
    reasons: dict[str, int] = {}
    for part in parts:
        for reason, count in part.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    files = tuple(file for part in parts for file in part.files)
    return replace(
        parts[0], files=files, quarantine=tuple(f for part in parts for f in part.quarantine), reasons=reasons
    )


def _make(
    run: Run, wave: Wave, recipe: Recipe, plan: Plan | ReviewPlan, todo: DataFrame, culprits: list[str], depth: int = 0
) -> list[Staged]:
    """Run the model over `todo`.

    Work that keeps killing its engine, through all of Spark's tries, is halved until the culprit stands alone; that video
    gets rows with the status generation_error, everything beside it is done. culprits: the last videos over which engines
    died; once there are _MOST_CULPRITS between which none came through, the rest is left as it is.
    """
    if len(culprits) == _MOST_CULPRITS:
        return []
    # One long task per engine, its longest videos first: the short ones fill the gaps at the end.
    tasks = todo.repartition(run.settings.engine.per_cluster).sortWithinPartitions(F.desc("duration_s"))
    try:
        with run.engines.mapped(tasks, rollout(plan), TRACE_COLUMNS) as made:
            staged = stage(wave, TRACES, trace_rows(made, run.task, recipe.id))
        culprits.clear()
        return [staged]
    except (PySparkException, Py4JJavaError) as error:
        # An engine that never started is no video's fault.
        if not engines(wave.path("progress")) or not worker_lost(error):
            raise
    left = [row["video_id"] for row in todo.select("video_id").distinct().limit(2).collect()]
    if len(left) == 1:
        culprits += left
        run.record.warn(f"video {culprits[-1]} keeps killing its engine: its rollouts get the status generation_error")
        return [stage(wave, TRACES, trace_rows(lost_rows(todo), run.task, recipe.id))]
    run.record.say("an engine died again and again over the same videos: trying them in halves")
    half = F.pmod(F.shiftright(F.xxhash64("video_id"), depth), F.lit(2))
    halves = [todo.where(half == part) for part in (0, 1)]
    return [
        staged
        for part in halves
        if not part.isEmpty()
        for staged in _make(run, wave, recipe, plan, part, culprits, depth + 1)
    ]


def lost_rows(todo: DataFrame) -> DataFrame:
    """A typed row for every rollout of videos that no engine survived; columns as TRACE_COLUMNS."""
    known = {
        "status": F.lit("generation_error"),
        "finish_reason": F.lit("error"),
        "error": F.lit("engine_lost: the engine died over this video at every try"),
        "well_formed": F.lit(False),
        "tokens": F.lit(0),
    }
    rows = todo.select(*KEY, F.explode("missing").alias("rollout_index"), "attempt", "ingested_on")
    schema = from_arrow_schema(TRACE_COLUMNS)
    return rows.select(
        *[
            (F.col(f.name) if f.name in rows.columns else known.get(f.name, F.lit(None))).cast(f.dataType).alias(f.name)
            for f in schema
        ]
    )


def say_statuses(run: Run) -> None:
    """How usable what the model wrote is, at the end of every job that ran it; a warning where most of it is not."""
    counts = {status: run.record.counts.get(f"status_{status}", 0) for status in STATUSES}
    total = sum(counts.values())
    if not total:
        return
    listed = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
    if counts["ok"] >= _USUALLY_OK * total:
        run.record.say(f"{total:,} traces: {listed}")
    else:
        run.record.warn(
            f"only {counts['ok']:,} of {total:,} traces are usable: {listed}; look at their text and error: does the model "
            "at model.path know these labels?"
        )


def measured_rate(run: Run, recipe: Recipe) -> float | None:
    """Rollouts (or reviews) per second of the last waves under this recipe; None if there was none.

    Only of waves of some length: in a short one the start of the engines is most of it.
    """
    version, made = "review_recipe_id" if recipe.reviewed else "recipe_id", F.col("counts")[_what(recipe)]
    last = (
        run.lake.read(RUNS)
        .where(F.col("event").startswith("wave ") & (F.col("versions")[version] == recipe.id))
        .where((made > 0) & (F.col("seconds") >= run.settings.waves.seconds / 4))
        .orderBy(F.desc("at"))
        .limit(_RATE_OVER_WAVES)
    )
    return last.agg((F.sum(made) / F.sum("seconds")).alias("rate")).collect()[0]["rate"]

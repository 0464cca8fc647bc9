"""rollout: K reasoning traces for every video that lacks them, in waves.

deepintuit rollout --conf conf/local.yaml [--split calibrate] [--set rollout.n=8] [--max-videos 1000] [--deadline 2h]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs import cli, recipe, session, staging
from jobs.progress import Watch, clock
from jobs.recipe import Recipe
from jobs.run import Run
from models import storage
from models.rollouts import Plan
from schemas.quarantine import QUARANTINE
from schemas.recipes import RECIPES
from schemas.runs import RUNS
from schemas.splits import STAGES
from schemas.table import transaction_version
from schemas.traces import TRACES, TRANSIENT
from schemas.videos import VIDEOS
from udfs.progress import TaskProgress, engines
from udfs.rollout import TRACE_COLUMNS, rollout

_RATE_OVER_WAVES = 20
# How Spark says that a task's process went away, whether the worker or the whole executor.
_WORKER_LOST = ("Python worker exited unexpectedly", "ExecutorLostFailure", "Python worker crashed")


def pending(
    videos: DataFrame, traces: DataFrame, quarantine: DataFrame, recipe_id: str, k: int, max_attempts: int
) -> DataFrame:
    """What is missing: the columns of `videos`, `missing` (rollout indices) and `attempt`.

    Going from k to more adds only the new indices. A rollout that failed for a passing reason is tried again, up to
    max_attempts in all; one that a contract refused is not.
    """
    wanted = videos.select("video_id", F.explode(F.sequence(F.lit(0), F.lit(k - 1))).alias("rollout_index"))
    tried = (
        traces.where((F.col("recipe_id") == recipe_id) & (F.col("rollout_index") < k))
        .groupBy("video_id", "rollout_index")
        .agg(F.max("attempt").alias("last"), F.max_by("status", "attempt").alias("status"))
    )
    again = F.col("status").isin(*TRANSIENT) & (F.col("last") + 1 < max_attempts)
    refused = quarantine.where(F.col("table") == "traces").select("row_key").distinct()
    key = F.concat_ws("/", "video_id", F.lit(recipe_id), "rollout_index", "attempt")
    return (
        wanted.join(tried, ["video_id", "rollout_index"], "left")
        .where(F.col("last").isNull() | again)
        .withColumn("attempt", F.coalesce(F.col("last") + 1, F.lit(0)))
        .withColumn("row_key", key)
        .join(refused, "row_key", "left_anti")
        .groupBy("video_id", "attempt")
        .agg(F.array_sort(F.collect_list("rollout_index")).alias("missing"))
        .join(videos, "video_id")
    )


def in_scope(videos: DataFrame, splits: DataFrame, task: str, split: str | None) -> DataFrame:
    """The videos of one stage, or all of them."""
    scope = videos.select("video_id", "uri", "duration_s", "ingested_at")
    if split is None:
        return scope
    chosen = splits.where((F.col("task") == task) & (F.col("split") == split)).select("video_id")
    return scope.join(chosen, "video_id", "left_semi")


def trace_rows(rollouts: DataFrame, task: str, recipe_id: str) -> DataFrame:
    """Columns of the udf -> rows for the table traces."""
    return (
        rollouts.withColumn("task", F.lit(task))
        .withColumn("recipe_id", F.lit(recipe_id))
        .withColumn("input_digest", F.lit(None).cast("string"))
        .withColumn("created_at", F.current_timestamp())
    )


def roll_out(run: Run, what: Recipe, k: int, scope: DataFrame) -> None:
    """Make the missing rollouts of `scope` under a recipe. Starts no engine if none is missing."""
    counter = TRACES.path(run.root), counter_of(what.id)
    planned_at = transaction_version(*counter)  # before looking what is there
    todo = _kept(run, f"plan-{what.id}", missing(run, what.id, k, scope))
    count = todo.agg(F.count_distinct("video_id").alias("videos"), F.sum(F.size("missing")).alias("rollouts")).first()
    run.versions["recipe_id"] = what.id
    run.add({"rollouts_pending": count["rollouts"] or 0, "rollouts": 0, "engines": 0})
    if not count["videos"]:
        known = scope.count()
        reason = f"all {known:,} videos in scope have their rollouts" if known else "there is no video in scope"
        run.say(f"nothing to roll out, {reason}; no engine was started")
        return
    session.check_slots(run.spark.sparkContext.getConf())
    recipe.check_model(what)
    run.register(RECIPES, what.id, what.json)
    videos = count["videos"]
    if run.budget.max_videos is not None and run.budget.max_videos < videos:
        run.deferred = True
        videos = run.budget.max_videos
        todo = todo.join(oldest(todo, videos), "video_id", "left_semi")
    rate = measured_rate(run, what.id) or run.settings.waves.first_rate
    seconds = videos * count["rollouts"] / count["videos"] / rate
    number = wave_count(seconds, run.settings.waves.seconds, run.budget.seconds_left())
    run.say(
        f"{videos:,} videos lack {round(seconds * rate):,} rollouts of recipe {what.id}: "
        f"{number} waves, about {clock(seconds)} at {rate:.1f} rollouts/s"
    )
    waves = _kept(run, f"waves-{what.id}", in_waves(todo, number), partition_by="wave")
    started, done, own, wave_seconds = time.monotonic(), 0, 0, seconds / number
    for index in range(number):
        if not run.budget.allows(wave_seconds):
            run.deferred = True
            run.say(f"stopping before the deadline: {videos - done:,} videos stay for the next run")
            break
        batch = waves.where(F.col("wave") == index).drop("wave")
        if batch.isEmpty():
            continue
        began, version = time.monotonic(), transaction_version(*counter)
        if version != planned_at + own:  # another run has published since: some of this may be there
            batch = missing(run, what.id, k, batch.drop("attempt", "missing").distinct())
        settled = _commit_wave(run, what, batch, version, done, videos)
        own += settled.landed["traces"].rows > 0
        done += settled.counts["videos"]
        wave_seconds = time.monotonic() - began
        if done < videos:
            left = clock((time.monotonic() - started) / max(done, 1) * (videos - done))
            run.say(f"wave {index + 1} of {number} is published: {done:,} of {videos:,} videos done, about {left} left")


def missing(run: Run, recipe_id: str, k: int, videos: DataFrame) -> DataFrame:
    """`pending`, as the lake is now."""
    return pending(
        videos, run.read(TRACES), run.read(QUARANTINE), recipe_id, k, max_attempts=run.settings.waves.max_attempts
    )


def oldest(todo: DataFrame, videos: int) -> DataFrame:
    """The ids of so many videos, those that wait longest."""
    waiting = todo.select("video_id", "ingested_at").distinct()
    return waiting.orderBy("ingested_at", "video_id").limit(videos).select("video_id")


def in_waves(todo: DataFrame, number: int) -> DataFrame:
    """Adds `wave`, 0 .. number - 1; a video is in one wave."""
    return todo.withColumn("wave", F.pmod(F.xxhash64("video_id"), F.lit(number))).repartition(number, "wave")


def wave_count(seconds: float, target: float, left: float | None) -> int:
    """Into how many waves work of so many seconds is cut, aiming at `target` seconds each.

    left: seconds before the deadline, of which a wave takes half at most, so that at least one is done.
    """
    length = target if left is None else min(target, max(left / 2, target / 10))
    return max(1, math.ceil(seconds / length))


def counter_of(recipe_id: str) -> str:
    """The scope of the compare-and-set that all writers of a recipe's traces share."""
    return f"traces/{recipe_id}"


def _kept(run: Run, name: str, rows: DataFrame, partition_by: str | None = None) -> DataFrame:
    """The rows as they are now, from a file of this run's own."""
    path = storage.join(staging.run_folder(run.root, run.run_id), name)
    rows.write.mode("overwrite").parquet(path, partitionBy=partition_by)
    return run.spark.read.parquet(path)


def _commit_wave(run: Run, what: Recipe, todo: DataFrame, missing_at: int, before: int, total: int) -> staging.Settled:
    """One wave of rollouts: the only stage that runs the model. missing_at: see staging.Output."""

    def write(wave: staging.Wave) -> staging.Manifest:
        task = TaskProgress(storage.join(wave.folder, "progress"))
        plan = replace(recipe.plan(what, run.settings), on_progress=task, on_engine_start=task.engine_started)
        # Fixed before the model runs, so that a half of it stays the same half.
        listed = storage.join(wave.folder, "todo")
        todo.write.parquet(listed)
        with Watch(run.job, task.folder, before, total, run.quiet):
            _make(run, what, plan, run.spark.read.parquet(listed), wave.data("made"))
        made = run.spark.read.parquet(wave.data("made"))
        rows = trace_rows(made, run.task, what.id)
        output = staging.stage(run.spark, wave, TRACES, rows, counter_of(what.id), missing_at)
        figures = made.agg(F.count_distinct("video_id").alias("videos"), F.sum("tokens").alias("tokens")).first()
        counts = {"rollouts": output.rows, "videos": figures["videos"], "tokens": figures["tokens"] or 0}
        return run.manifest(wave, [output], counts | {"engines": engines(task.folder)})

    settled = staging.commit(run.spark, run.next_wave(), write)
    landed = settled.landed["traces"]
    run.add({name: settled.counts[name] for name in ("rollouts", "tokens", "engines")})
    run.add({"traces": landed.rows, "traces_quarantined": settled.refused["traces"], "collisions": landed.collisions})
    return settled


def _make(run: Run, what: Recipe, plan: Plan, todo: DataFrame, path: str, depth: int = 0) -> None:
    """Run the model over `todo` into Parquet files under `path`.

    Work that keeps killing its engine, through all of Spark's tries, is halved until the culprit stands alone; that video
    gets rows with the status generation_error, everything beside it is done.
    """
    # One long task per engine, its longest videos first: the short ones fill the gaps at the end.
    tasks = todo.repartition(run.settings.engine.per_cluster).sortWithinPartitions(F.desc("duration_s"))
    made = tasks.mapInArrow(rollout(plan), from_arrow_schema(TRACE_COLUMNS))
    try:
        made.write.mode("append").parquet(path)
        return
    except (PySparkException, Py4JJavaError) as error:
        # An engine that never started is no video's fault.
        if not engines(plan.on_progress.folder) or not any(sign in str(error) for sign in _WORKER_LOST):
            raise
    if todo.select("video_id").distinct().count() == 1:
        run.say("one video keeps killing its engine: its rollouts get the status generation_error")
        lost_rows(todo).write.mode("append").parquet(path)
        return
    run.say("an engine died again and again over the same videos: trying them in halves")
    # Not the hash that cut the waves: all videos of a wave share its lowest bits.
    half = F.pmod(F.shiftright(F.xxhash64("video_id", F.lit("half")), depth), F.lit(2))
    for part in (0, 1):
        rest = todo.where(half == part)
        if not rest.isEmpty():
            _make(run, what, plan, rest, path, depth + 1)


def lost_rows(todo: DataFrame) -> DataFrame:
    """A typed row for every rollout of videos that no engine survived; columns as TRACE_COLUMNS."""
    known = {
        "status": F.lit("generation_error"),
        "finish_reason": F.lit("error"),
        "error": F.lit("engine_lost: the engine died over this video at every try"),
        "well_formed": F.lit(False),
        "tokens": F.lit(0),
    }
    rows = todo.select("video_id", F.explode("missing").alias("rollout_index"), "attempt")
    schema = from_arrow_schema(TRACE_COLUMNS)
    return rows.select(
        *[
            (F.col(f.name) if f.name in rows.columns else known.get(f.name, F.lit(None))).cast(f.dataType).alias(f.name)
            for f in schema
        ]
    )


def measured_rate(run: Run, recipe_id: str) -> float | None:
    """Rollouts per second of the last waves under this recipe; None if there was none.

    Only of waves of some length: in a short one the start of the engines is most of it.
    """
    last = (
        run.read(RUNS)
        .where(F.col("event").startswith("wave ") & (F.col("versions")["recipe_id"] == recipe_id))
        .where((F.col("counts")["rollouts"] > 0) & (F.col("seconds") >= run.settings.waves.seconds / 4))
        .orderBy(F.desc("at"))
        .limit(_RATE_OVER_WAVES)
    )
    return last.agg((F.sum(F.col("counts")["rollouts"]) / F.sum("seconds")).alias("rate")).first()["rate"]


def run(run: Run, arguments: argparse.Namespace) -> None:
    scope = in_scope(run.read(VIDEOS), run.view("current_splits"), run.task, arguments.split)
    roll_out(run, recipe.of_settings(run.settings), run.settings.rollout.n, scope)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", choices=STAGES, help="only videos of this stage; without it, all videos")


def main() -> int:
    return cli.main(["rollout", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

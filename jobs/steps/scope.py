"""Scopes: which videos a job takes on. Every step restricts tables to its scope before it does anything else with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.runtime.run import Run
from jobs.steps.inputs import with_inputs
from jobs.steps.recipes import Recipe
from schemas.videos import VIDEOS

COLUMNS = (
    "video_id",
    "input_digest",
    "input_text",
    "uri",
    "duration_s",
    "ingested_at",
    "ingested_on",
    "wave_id",
)
KEY = ("video_id", "input_digest")  # a video whose text has changed is asked anew
_DAYS_BY_NAME = 366  # beyond so many days a table is cut by the first and the last of them


@dataclass(frozen=True)
class Scope:
    """A set of videos that stays as it is, whatever happens to the lake: COLUMNS, how many, and the days they are from.

    Rows of a table with `input_digest` are those of a video only where they are about its text as it is here.
    """

    videos: DataFrame
    count: int
    days: tuple[date, ...]

    def of(self, rows: DataFrame) -> DataFrame:
        """The rows of these videos, of a table with `ingested_on`: folders first, then ids."""
        key = _key(rows)
        return self.within(rows).join(self.videos.select(*key), key, "left_semi")

    def without(self, rows: DataFrame) -> DataFrame:
        """The videos that have no row in such a table."""
        key = _key(rows)
        return self.videos.join(self.within(rows).select(*key), key, "left_anti")

    def since(self, rows: DataFrame, time: str) -> DataFrame:
        """The rows from the first of these days on, of a table that has no such days: nothing was said of them before."""
        return rows.where(F.col(time) >= F.lit(self.days[0]) if self.days else F.lit(False))

    def within(self, rows: DataFrame) -> DataFrame:
        """The rows from the same days."""
        return rows.where(of_days(self.days))


def of_days(days: Sequence[date]) -> Column:
    """Of a table with `ingested_on`, whether a row is from one of these days; of many, between the first and the last."""
    day = F.col("ingested_on")
    if len(days) > _DAYS_BY_NAME:
        return day.between(F.lit(days[0]), F.lit(days[-1]))
    return day.isin(*days)


def _key(rows: DataFrame) -> list[str]:
    return [name for name in KEY if name in rows.columns]


def fix(run: Run, name: str, videos: DataFrame) -> Scope:
    """A scope of these videos, kept in a file of the run's own."""
    path = run.path(name)
    videos.select(*COLUMNS).write.mode("overwrite").parquet(path)
    return _kept(run.lake.spark.read.parquet(path))


def _kept(videos: DataFrame) -> Scope:
    found = videos.agg(F.count("*").alias("count"), F.collect_set("ingested_on").alias("days")).collect()[0]
    return Scope(videos, found["count"], tuple(sorted(found["days"])))


def parts(run: Run, name: str, scope: Scope, size: int) -> Iterator[Scope]:
    """The scope in parts of about so many videos, oldest first."""
    if scope.count <= size:
        if scope.count:
            yield scope
        return
    number = -(-scope.count // size)
    for part in cut(run, name, scope.videos, number):
        yield _kept(part)


def cut(run: Run, name: str, videos: DataFrame, number: int) -> Iterator[DataFrame]:
    """Rows with COLUMNS in so many parts of about equally many videos, oldest first, from files of the run's own.

    All rows of a video are in one part; parts without rows are left out.
    """
    path = run.path(name)
    in_order(videos, number).write.mode("overwrite").partitionBy("part").parquet(path)
    for part in range(number):
        rows = run.lake.spark.read.parquet(path).where(F.col("part") == str(part)).drop("part")
        if not rows.isEmpty():
            yield rows


def in_order(videos: DataFrame, number: int) -> DataFrame:
    """Adds `part`, 0 .. number - 1, oldest first."""
    ranged = videos.repartitionByRange(number, "ingested_at", "video_id")
    return ranged.withColumn("part", F.spark_partition_id())


def oldest(videos: DataFrame, count: int) -> DataFrame:
    """So many of them, those that have waited longest."""
    return videos.orderBy("ingested_at", "video_id").limit(count)


def in_split(videos: DataFrame, splits: DataFrame, task: str, split: str | None) -> DataFrame:
    """The videos of one stage, or all of them."""
    if split is None:
        return videos
    chosen = splits.where((F.col("task") == task) & (F.col("split") == split)).select("video_id")
    return videos.join(chosen, "video_id", "left_semi")


def imported(run: Run, recipe: Recipe) -> DataFrame:
    """What another system's traces are about, as videos are told. Those whose bytes came after them are left out, and said:
    they are known by another id now."""
    named = run.lake.view("current_imports").where(F.col("recipe_id") == recipe.id)
    if came := named.where("came_as IS NOT NULL").count():
        run.record.warn(
            f"{came:,} videos came after the traces of {recipe.json['by']} that are about them: `deepintuit import-traces` "
            "with the same file takes these over to them"
        )
    nothing: dict[str, str] = {"uri": "string", "duration_s": "double"}
    return named.where("came_as IS NULL").select(
        "video_id",
        *[F.lit(None).cast(kind).alias(name) for name, kind in nothing.items()],
        F.col("imported_at").alias("ingested_at"),
        "ingested_on",
        "wave_id",
    )


def of_split(run: Run, split: str | None, recipe: Recipe | None = None) -> Scope:
    """The videos of one stage of this run's task, or all of them, with what goes into their prompts under a recipe; of one
    that was imported those that its traces are about, whether their bytes are there or not."""
    there = imported(run, recipe) if recipe and recipe.imported else run.lake.read(VIDEOS)
    chosen = in_split(there, run.lake.view("current_splits"), run.task, split)
    name = "-".join(("scope", split or "all", *((recipe.id,) if recipe else ())))
    return fix(run, name, with_inputs(run, recipe.texts if recipe else [], chosen))

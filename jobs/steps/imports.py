"""Traces that other systems wrote, on their way into the lake: one recipe for who wrote them and how they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.runtime.errors import Doubted, UsageError
from jobs.runtime.run import Run
from jobs.steps import naming
from jobs.steps.inputs import NO_INPUT
from jobs.steps.recipes import Recipe
from jobs.steps.table_files import check_columns, find, read_table
from lake import storage
from models import identity
from models.language.loose import Names, Where
from schemas.files import FILES
from schemas.imports import IMPORTS
from schemas.quarantine import QUARANTINE
from schemas.recipes import RECIPES
from schemas.traces import TRACES
from schemas.videos import VIDEOS
from udfs.foreign import FOREIGN_COLUMNS, Mapped, read_foreign

NOT_GIVEN = "not_given"
_MOST = 128  # traces of a video
_GAPS = 0.5  # share of the traces that a file may lack
KINDS = (".jsonl", ".csv", ".tsv", ".parquet")


def lines(run: Run, path: str, mapped: Mapped) -> DataFrame:
    """The rows of a file as row (its number) and line (JSON). Raises UsageError for a file that is not there, of another
    kind, or without the columns that are named."""
    if not storage.exists(path):
        raise UsageError(f"--source {path}: no such file")
    spark, uri = run.lake.spark, storage.absolute(path)
    kind = next((kind for kind in KINDS if path.lower().endswith(kind)), None)
    if kind is None:
        raise UsageError(f"--source {path}: expected a file that ends in {', '.join(KINDS)}")
    if kind in (".csv", ".tsv"):
        find("--source", path)
    if kind == ".jsonl":
        whole_text = F.when(F.is_valid_utf8("value"), F.col("value"))  # Python could not even take the others in
        rows = spark.read.text(uri).where("trim(value) <> ''").select(whole_text.alias("line"))
    else:
        table = _parquet(spark, path, uri) if kind == ".parquet" else read_table(spark, path)
        whole = [field for field in (mapped.id, *mapped.texts) if "." not in field]
        check_columns(f"--source {path}", table.columns, whole, "--map")
        rows = table.select(F.to_json(F.struct("*"), {"ignoreNullFields": "false"}).alias("line"))
    return rows.select(F.monotonically_increasing_id().alias("row"), "line")


def _parquet(spark: SparkSession, path: str, uri: str) -> DataFrame:
    try:
        return spark.read.parquet(uri)
    except (PySparkException, Py4JJavaError):
        raise UsageError(f"--source {path}: expected a Parquet file, found another or none that can be read") from None


def read(run: Run, given: DataFrame, mapped: Mapped, values: Mapping[str, str]) -> DataFrame:
    """What the rows say, FOREIGN_COLUMNS with video_id and refused_*, in a file of the run's own."""
    names = Names(run.labels, dict(values), run.label_set.independent)
    read_by = read_foreign(mapped, names, run.settings.rollout.grammar)
    path = run.path("read")
    given.mapInArrow(read_by, from_arrow_schema(FOREIGN_COLUMNS)).write.mode("overwrite").parquet(path)
    rows = run.lake.spark.read.parquet(path)
    refused = rows.where("refused_reason IS NOT NULL").withColumn("video_id", F.lit(None).cast("string"))
    named = rows.where("refused_reason IS NULL").drop("refused_reason", "refused_message")
    named = named.withColumns({"external_id": naming.name_of(F.col("external_id")), "source": F.lit("import")})
    matched = naming.match(named, run.lake.read(FILES), run.settings.ingest.source).drop("source", "refused_key")
    return matched.unionByName(refused)


def recipe_of(run: Run, by: str, mapped: Mapped, values: Mapping[str, str], rows: DataFrame) -> Recipe:
    """Identity of an import. Raises UsageError where no row names a video, and where one has too many traces."""
    kept = rows.where("refused_reason IS NULL").groupBy("video_id", "prompt").count()
    most = {row["prompt"]: row["most"] for row in kept.groupBy("prompt").agg(F.max("count").alias("most")).head(_MOST)}
    if not most:
        reasons = {row["refused_reason"]: row["count"] for row in rows.groupBy("refused_reason").count().collect()}
        if not reasons:
            raise UsageError("import-traces: expected rows, found an empty file")
        listed = ", ".join(f"{count} as {reason}" for reason, count in sorted(reasons.items()))
        raise UsageError(
            f"import-traces: expected rows that name a video in the field {mapped.id}, found none ({listed}): "
            "--map id= names another field, or the file is another one"
        )
    if sum(most.values()) >= _MOST:
        raise UsageError(
            f"import-traces: expected at most {_MOST - 1} traces of a video over all prompts, found {sum(most.values())} or "
            "more: do --map id= and prompt= name the right fields?"
        )
    check_told(rows, mapped)
    videos, traces = kept.agg(F.count_distinct("video_id"), F.sum("count")).collect()[0]
    if traces < (1 - _GAPS) * videos * sum(most.values()):
        longest = (
            rows.where("refused_reason IS NULL").groupBy("external_id").count().orderBy(F.desc("count")).head(1)[0]
        )
        raise UsageError(
            f"import-traces: expected about as many traces of each video, found {traces:,} of {videos:,} videos, but "
            f"{longest['count']:,} of {longest['external_id']} alone: is that a video? Leave its rows out"
        )
    told: dict[str, Any] = {"id": mapped.id, "text": list(mapped.texts)}
    told |= {"prompt": mapped.prompt} if mapped.prompt else {}
    places: dict[str, Where | None] = {"answer": mapped.answer, "think": mapped.think}
    told |= {name: where.expression for name, where in places.items() if where}
    told |= {"values": dict(values)} if values else {}
    value = identity.imported_recipe(
        by=by,
        source=run.settings.ingest.source,
        mapped=told,
        labels=list(run.labels),
        grammar=run.settings.rollout.grammar,
        prompts=dict(sorted(most.items())),
    )
    return Recipe(identity.digest(value), value, "")


def check_told(rows: DataFrame, mapped: Mapped) -> None:
    """Raises UsageError for a field that no row has: a mistyped one is no trace without an answer."""
    kept = rows.where("refused_reason IS NULL")
    if kept.where("text IS NOT NULL").isEmpty():
        raise UsageError(f"--map text={','.join(mapped.texts)}: expected a field of the rows, found it in none of them")
    beside = "prompt LIKE '%/%'" if len(mapped.texts) > 1 else "prompt <> ''"
    if mapped.prompt and kept.where(beside).isEmpty():
        raise UsageError(f"--map prompt={mapped.prompt}: expected a field of the rows, found it in none of them")


def placed(run: Run, rows: DataFrame, recipe: Recipe) -> DataFrame:
    """Rows for the table traces: of each video K, by prompt and place in the file. What the file lacks is a row that says
    so, with NULL as its `row`; what it refuses has refused_*."""
    prompts = list(recipe.json["prompts"].items())
    first, at = [], 0
    for prompt, most in prompts:
        first += [F.lit(prompt), F.lit(at)]
        at += most
    within = F.row_number().over(Window.partitionBy("video_id", "prompt").orderBy("row"))
    good = rows.where("refused_reason IS NULL")
    good = good.withColumn("rollout_index", F.create_map(*first)[F.col("prompt")] + within - 1)
    every = good.select("video_id", "external_id").groupBy("video_id").agg(F.min("external_id").alias("external_id"))
    index = F.explode(F.sequence(F.lit(0), F.lit(recipe.imported - 1))).alias("rollout_index")
    whole = every.select("video_id", "external_id", index).join(
        good.drop("external_id"), ["video_id", "rollout_index"], "left"
    )
    lacking = F.col("row").isNull()
    key = F.concat_ws("/", F.lit("import"), F.lit(recipe.id), F.col("row"))
    return (
        whole.unionByName(rows.where("refused_reason IS NOT NULL"), allowMissingColumns=True)
        .join(_days(run, every, recipe), "video_id", "left")
        .withColumns(
            {
                "status": F.when(lacking, F.lit("parse_error")).otherwise(F.col("status")),
                "error": F.when(lacking, F.lit(f"{NOT_GIVEN}: the file has no such trace of this video")),
                "well_formed": F.coalesce("well_formed", F.lit(False)),
                "refused_key": F.when(F.col("refused_reason").isNotNull(), key),
                # A refused row has no day of its own, and quarantine needs none.
                "ingested_on": F.coalesce("ingested_on", F.current_date()),
                "task": F.lit(run.task),
                "recipe_id": F.lit(recipe.id),
                "input_digest": F.lit(NO_INPUT),
                "attempt": F.lit(0),
                "engine": F.lit(recipe.json["by"]),
                "created_at": F.current_timestamp(),
            }
        )
    )


def _days(run: Run, videos: DataFrame, recipe: Recipe) -> DataFrame:
    """video_id, ingested_on: of what is in the lake that day, of what an import has named that day, else today."""
    of_video = run.lake.read(VIDEOS).select("video_id", F.col("ingested_on").alias("own"))
    named = run.lake.read(IMPORTS).where(F.col("recipe_id") == recipe.id)
    before = named.select("video_id", F.col("ingested_on").alias("before"))
    day: Column = F.coalesce("own", "before", F.current_date())
    joined = videos.join(of_video, "video_id", "left").join(before, "video_id", "left")
    return joined.select("video_id", day.alias("ingested_on"))


def news(run: Run, rows: DataFrame, recipe: Recipe) -> DataFrame:
    """Those of `placed` that the lake has neither kept nor refused yet. What an earlier file lacked and this one has is
    another attempt. Raises Doubted where a trace is there that says something else."""
    mine = run.lake.view("current_traces").where(F.col("recipe_id") == recipe.id)
    lacked = F.coalesce(F.col("error").startswith(NOT_GIVEN), F.lit(False))
    there = mine.select(
        "video_id", "rollout_index", F.col("text").alias("then"), F.col("attempt").alias("last"), lacked.alias("lacked")
    )
    good = rows.where("refused_reason IS NULL").join(there, ["video_id", "rollout_index"], "left")
    given = F.col("row").isNotNull()
    changed = good.where(given & ~F.col("lacked") & ~F.col("text").eqNullSafe(F.col("then")))
    if other := changed.count():
        one = changed.select("external_id", "prompt").head(1)[0]
        raise Doubted(
            f"import-traces: {other:,} traces say something else than those that recipe {recipe.id} has, for example of "
            f"{one['external_id']} ({one['prompt'] or 'its only prompt'}): a corrected or reordered file is another import: "
            "give it a name of its own with --by"
        )
    new = good.where(F.col("last").isNull() | (F.col("lacked") & given))
    new = new.withColumn("attempt", F.coalesce(F.col("last") + 1, F.lit(0)).cast("int")).drop("then", "last", "lacked")
    noted = run.lake.read(QUARANTINE).where((F.col("table") == TRACES.name) & F.col("row_key").startswith("import/"))
    known = noted.select(F.col("row_key").alias("refused_key")).distinct()
    bad = rows.where("refused_reason IS NOT NULL").join(known, "refused_key", "left_anti")
    return new.unionByName(bad)


def absent(run: Run, rows: DataFrame, recipe: Recipe) -> int:
    """How many good rows of `placed` the lake has no trace of."""
    there = run.lake.read(TRACES).where(F.col("recipe_id") == recipe.id).select("video_id", "rollout_index")
    return rows.where("refused_reason IS NULL").join(there, ["video_id", "rollout_index"], "left_anti").count()


def named(run: Run, rows: DataFrame, recipe: Recipe) -> DataFrame:
    """Rows for the table imports: the videos among `placed` that it has not yet."""
    known = run.lake.read(IMPORTS).where(F.col("recipe_id") == recipe.id).select("video_id")
    first = rows.where("refused_reason IS NULL").groupBy("video_id", "ingested_on").agg(F.min("external_id").alias("e"))
    facts = {"recipe_id": F.lit(recipe.id), "task": F.lit(run.task), "imported_at": F.current_timestamp()}
    return first.withColumnRenamed("e", "external_id").join(known, "video_id", "left_anti").withColumns(facts)


def recipe(run: Run, recipe_id: str) -> Recipe:
    """An import's recipe by its id. Raises UsageError where there is none, and where it was read for other labels."""
    known = _imported(run)
    found = next((json.loads(row["json"]) for row in known if row["recipe_id"] == recipe_id), None)
    if found is None:
        raise UsageError(
            f"--traces {recipe_id}: expected the recipe of imported traces of the task {run.task}, found "
            f"{_listed([row['recipe_id'] for row in known])}: `deepintuit import-traces` takes some in"
        )
    if found["labels"] != list(run.labels):
        raise UsageError(
            f"--traces {recipe_id}: expected traces that were read for the labels {_listed(run.labels)}, found them "
            f"read for {_listed(found['labels'])}: import them again"
        )
    return Recipe(recipe_id, found, "")


def known(run: Run) -> list[str]:
    """Ids of the recipes of this task's imports, newest first."""
    return [row["recipe_id"] for row in _imported(run)]


def _imported(run: Run) -> list[Row]:
    mine = run.lake.read(RECIPES).where(F.col("task") == run.task).orderBy(F.desc("created_at"))
    return mine.where(F.get_json_object("json", "$.origin") == "imported").collect()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"

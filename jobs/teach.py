"""teach: a teacher's traces for the videos of the split `align`, filtered: what stage 1 (`align`) learns from.

    deepintuit teach --file traces.csv --conf conf/local.yaml [--by NAME]
    deepintuit teach --model FOLDER|NAME [--n 4] --conf conf/local.yaml [--by NAME]
    deepintuit teach --oracle 0.2 [--seed 0] --conf conf/handwriting.yaml [--by NAME]

--file     a CSV or TSV with the columns file and trace; a video may have several rows
--model    a folder, or a registered model by name or id, writes n traces of each video: rollouts like any others
--oracle   of the task handwriting alone: knows the digits (facet `digits`) and errs at that rate, the same for one seed

Kept is a trace that is well formed, gives the video's own label, does not name one in its observation, does not show that
it knew and, by the task's rule where there is one, argues for its answer; each other one is a row of `quarantine` that says
why. What has no label is kept where a teacher wrote several traces of it and all agree. A corrected file, another n or seed
is another teacher: `align` takes the newest.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import facets, naming, recipes, scope, teachers
from jobs.steps.inputs import NO_INPUT
from jobs.steps.recipes import Recipe
from jobs.steps.rollouts import roll_out, say_statuses
from jobs.steps.scope import Scope
from jobs.steps.table_files import check_columns, find, read_table
from jobs.steps.teacher_filter import SPLIT, judged, marked
from lake import storage
from lake.commit import Landed
from lake.staging import Wave
from lake.waves import Settled, Work
from lake.write import stage
from schemas.files import FILES
from schemas.quarantine import QUARANTINE
from schemas.recipes import RECIPES
from schemas.traces import TRACES
from schemas.videos import VIDEOS
from udfs.argued import ARGUED_COLUMNS, argued
from udfs.imported import IMPORTED_COLUMNS, read_traces
from udfs.oracle import ORACLE_COLUMNS, oracle

DIGITS = "digits"  # the facet that the oracle knows
_NAMES = 5  # examples in a message
_ENOUGH = 10  # traces of an answer, before its losses are told


@dataclass(frozen=True)
class Said:
    """What a teacher says. rows: as `teacher_filter.judged` takes them, without recipe and task; number: how many there are
    in the source itself; version: names the source as it is now."""

    version: dict[str, Any]
    number: int
    rows: DataFrame


def of_file(run: Run, path: str, by: str) -> Said:
    """The rows of a file. Raises UsageError for a file that is not there, or without the columns file and trace."""
    find("--file", path)
    _scope(run)
    table = read_table(run.lake.spark, path)
    check_columns(f"--file {path}", table.columns, ["file", "trace"])
    named = table.select(
        F.monotonically_increasing_id().alias("row"),
        naming.name_of(F.col("file")).alias("external_id"),
        F.col("trace").alias("text"),
    )
    videos = naming.named_videos(run.lake.read(FILES), run.settings.ingest.source, named).where("videos = 1")
    splits = run.lake.view("current_splits").where(F.col("task") == run.task).select("video_id", "split")
    # Of several rows about one video the first is trace 0, and so on.
    place = F.row_number().over(Window.partitionBy("video_id").orderBy("row"))
    rows = (
        named.join(videos.select("external_id", F.col("known_id").alias("video_id")), "external_id", "left")
        .join(run.lake.read(VIDEOS).select("video_id", "ingested_on", "duration_s"), "video_id", "left")
        .join(splits, "video_id", "left")
        .withColumn("rollout_index", place - 1)
    )
    if lost := [row["external_id"] for row in rows.where("video_id IS NULL").select("external_id").head(_NAMES)]:
        run.record.say(f"without exactly one video of their name, for example: {', '.join(map(str, lost))}")
    version = {"file": hashlib.sha256(storage.read_bytes(storage.absolute(path))).hexdigest()[:16]}
    return Said(version, table.count(), _read(run, rows, by))


def of_oracle(run: Run, rate: float, seed: int, by: str) -> Said:
    """What the oracle says of every video. Raises UsageError for another task, and where it does not know the digits."""
    if run.task != "handwriting":
        raise UsageError(
            f"--oracle: expected the task handwriting, whose digits it knows, found {run.task}: give --file or --model"
        )
    if not 0.0 <= rate <= 1.0:
        raise UsageError(f"--oracle {rate:g}: expected a rate of errors from 0 to 1")
    mine = _scope(run)
    shown = facets.values(run, DIGITS).groupBy("video_id").agg(F.min("value").alias(DIGITS))
    videos = mine.videos.select("video_id", "ingested_on", "duration_s").join(shown, "video_id", "left")
    unknown = videos.where(f"{DIGITS} IS NULL OR NOT {DIGITS} RLIKE '^[0-9]( [0-9]){{3}}$'")
    if odd := unknown.select("video_id", DIGITS).head(1):
        raise UsageError(
            f"--oracle: expected the facet {DIGITS} of every video in the split {SPLIT}, such as '3 5 2 9', found "
            f"{odd[0][DIGITS]!r} of {odd[0]['video_id']} ({unknown.count()} such videos): ingest their labels file with "
            "conf/handwriting.yaml, which names it under ingest.labels.facets"
        )
    said = videos.select("video_id", DIGITS).mapInArrow(oracle(rate, seed), from_arrow_schema(ORACLE_COLUMNS))
    rows = videos.join(said, "video_id").withColumns({"split": F.lit(SPLIT), "rollout_index": F.lit(0)})
    return Said({"oracle": float(rate), "seed": seed}, mine.count, _read(run, rows, by))


def of_model(run: Run, name: str, n: int) -> Said:
    """n rollouts of every video by a model, under its own recipe; those that are there are not made again.

    Its prompt is that of any rollout: what people said of a video is no part of it.
    """
    from jobs.steps.training import model_folder  # brings torch, which only this source needs

    folder = model_folder(run, "--model", name)
    # An adapter is one of the site's own model.
    model = run.settings.model.model_copy(update={"path": str(folder), "adapter": None})
    recipe = recipes.of_settings(run.settings.model_copy(update={"model": model}))
    mine = _scope(run, recipe)
    roll_out(run, recipe, n, mine)
    say_statuses(run)
    traces = mine.of(run.lake.view("current_traces").where(F.col("recipe_id") == recipe.id))
    traces = traces.where(F.col("rollout_index") < n)
    rows = traces.withColumns({"split": F.lit(SPLIT), "text": whole()}).drop("wave_id")
    # n is named, as it decides which videos without a label have traces that agree.
    return Said({"model": recipe.id, "n": n}, traces.count(), rows)


def whole() -> Column:
    """The text of a trace with what the model's chat template had opened in its prompt: others' may open nothing."""
    opened = F.col("well_formed") & ~F.contains("text", F.lit("<think>"))
    return F.when(opened, F.concat(F.lit("<think>"), "text")).otherwise(F.col("text"))


def _scope(run: Run, recipe: Recipe | None = None) -> Scope:
    mine = scope.of_split(run, SPLIT, recipe)
    if not mine.count:
        raise UsageError(
            f"teach: expected videos of the task {run.task} in the split {SPLIT}, found none: `deepintuit ingest "
            f"--labels FILE --split {SPLIT}`"
        )
    return mine


def _read(run: Run, rows: DataFrame, by: str) -> DataFrame:
    """Texts with what the grammar finds in them, as columns of a trace that is no rollout of ours."""
    known = {
        "input_digest": F.lit(NO_INPUT),
        "attempt": F.lit(0),
        "engine": F.lit(by),
        "error": F.lit(None).cast("string"),
    }
    read = read_traces(run.settings.rollout.grammar, run.labels, run.label_set.independent)
    names = [name for name in IMPORTED_COLUMNS.names if name in rows.columns]
    return rows.select(*names, "duration_s").mapInArrow(read, from_arrow_schema(IMPORTED_COLUMNS)).withColumns(known)


def publish(run: Run, said: Said, recipe: Recipe) -> None:
    """Kept traces into the table traces, the others into quarantine, each once however often this is run.

    Raises RuntimeError where kept, refused and those without a video are not all that were given.
    """
    traces_at, refused_at = run.lake.version(TRACES), run.lake.version(QUARANTINE)
    known = {"task": F.lit(run.task), "recipe_id": F.lit(recipe.id), "created_at": F.current_timestamp()}
    truth = run.lake.view("current_labels").where(F.col("task") == run.task)
    rows = judged(
        with_argued(run, said.rows.withColumns(known)),
        truth,
        run.labels,
        run.settings.rollout.grammar,
        run.settings.rollout.max_tokens,
    )
    there = run.lake.read(TRACES).where(F.col("recipe_id") == recipe.id)
    noted = run.lake.read(QUARANTINE).where(F.col("row_key").contains(f"/{recipe.id}/"))
    path = run.path("judged")  # counted and staged from one file: what reads texts runs once
    marked(rows, there, noted).write.mode("overwrite").parquet(path)
    fixed = run.lake.spark.read.parquet(path)
    lost = F.col("video_id").isNull().alias("lost")
    answer = F.concat_ws(", ", "labels").alias("answer")
    fates = fixed.groupBy("is_new", "refused_reason", lost, answer).count().collect()
    if (found := sum(row["count"] for row in fates)) != said.number:
        raise RuntimeError(f"{said.number} traces of the teacher became {found} judged ones: rows were lost or doubled")
    run.register(RECIPES, recipe.id, recipe.json)
    settled = None
    if any(row["is_new"] for row in fates):

        def write(wave: Wave) -> Work:
            return [stage(wave, TRACES, fixed.where("is_new"), traces_at, refused_at)], {}

        settled = run.waves.make(write, run.record.versions | {"recipe_id": recipe.id})
    account(run, said, fates, settled)


def with_argued(run: Run, rows: DataFrame) -> DataFrame:
    """The same rows with what they argue for: ARGUED_COLUMNS."""
    schema = StructType([*rows.schema, *(StructField(name, StringType()) for name in ARGUED_COLUMNS)])
    return rows.mapInArrow(argued(run.settings.labels.rule), schema)


def account(run: Run, said: Said, fates: list[Row], settled: Settled | None) -> None:
    """What became of every trace, now or in an earlier run, into the run's counts. Raises RuntimeError as `publish`."""
    found: Counter[str] = Counter()
    for row in fates:
        if row["lost"]:
            found["lost"] += row["count"]
        elif not row["is_new"]:
            found[row["refused_reason"] or "kept"] += row["count"]
    landed = settled.landed[TRACES.name] if settled else Landed(0, 0, 0)
    found.update({"kept": landed.rows + landed.known} | (settled.reasons[TRACES.name] if settled else {}))
    reasons = {reason: count for reason, count in sorted(found.items()) if reason not in ("kept", "lost")}
    listed = ", ".join(f"{count} as {reason}" for reason, count in reasons.items()) or "none"
    told = (
        f"{found['kept']} kept + {sum(reasons.values())} refused ({listed}) + {found['lost']} without exactly one video"
    )
    if found.total() != said.number:
        raise RuntimeError(f"{said.number} traces of the teacher are not {told}: rows were lost or doubled")
    run.record.add(
        {
            "teacher_traces": said.number,
            "teacher_traces_kept": found["kept"],
            "teacher_traces_new": landed.rows,
            "teacher_traces_refused": sum(reasons.values()),
            "teacher_traces_without_video": found["lost"],
        }
        | {f"refused_{reason}": count for reason, count in reasons.items()}
    )
    run.record.say(f"{said.number} traces = {told}; {landed.rows} of those that are kept are new")
    warn_of_losses(run, fates)


def warn_of_losses(run: Run, fates: list[Row]) -> None:
    """Answers that lose most of their traces: a policy whose label is an everyday word, say, that observations name."""
    given, kept = Counter[str](), Counter[str]()
    for row in fates:
        given[row["answer"]] += row["count"]
        kept[row["answer"]] += row["count"] * (row["refused_reason"] is None)
    for answer, count in sorted(given.items()):
        if answer and count >= _ENOUGH and kept[answer] < count / 2:
            run.record.warn(
                f"of {count} traces that answer {answer} {kept[answer]} are kept: `align` would hardly learn it; the table "
                "quarantine says why"
            )


def run(run: Run, arguments: argparse.Namespace) -> None:
    given = [name for name in ("file", "model", "oracle") if getattr(arguments, name) is not None]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none of them"
        raise UsageError(f"teach: expected exactly one of --file, --model and --oracle, found {found}")
    for name, source in (("n", "model"), ("seed", "oracle")):
        if getattr(arguments, name) is not None and source not in given:
            raise UsageError(f"teach: --{name} goes with --{source}, found it with --{given[0]}: leave it out")
    run.waves.must_be_open(TRACES)
    if arguments.file is not None:
        said = of_file(run, arguments.file, arguments.by)
    elif arguments.model is not None:
        said = of_model(run, arguments.model, arguments.n or run.settings.rollout.n)
    else:
        said = of_oracle(run, arguments.oracle, arguments.seed or 0, arguments.by)
    recipe = teachers.recipe_of(run, arguments.by, said.version)
    publish(run, said, recipe)
    run.record.versions["teacher"] = recipe.id
    newest = teachers.known(run)[0]["recipe_id"]
    run.record.say(
        f"these are the traces {recipe.id} of {arguments.by}; "
        + (
            "`align` learns from them"
            if newest == recipe.id
            else f"`align` learns from {newest}, or --traces {recipe.id}"
        )
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE.csv", help="traces that somebody wrote: columns file, trace")
    parser.add_argument(
        "--model", metavar="MODEL", help="who writes them: a folder, or name or id of a registered model"
    )
    parser.add_argument("--oracle", type=float, metavar="RATE", help="the benchmark's oracle, which errs at this rate")
    parser.add_argument(
        "--by", default="teacher", metavar="NAME", help="who wrote them: traces of two teachers stay apart"
    )
    parser.add_argument(
        "--n", type=cli.positive, metavar="K", help="traces of each video, of a model (default rollout.n)"
    )
    parser.add_argument("--seed", type=int, help="of the oracle's errors and words (default 0)")


def main() -> int:
    return cli.main(["teach", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

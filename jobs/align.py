"""align: stage 1, cold start - teach the reasoning model on teacher traces of the split `align`.

    deepintuit align --teacher traces.csv --out build/aligned --conf conf/local.yaml [--start FOLDER]
    deepintuit align --direct --out build/direct --start FOLDER --conf conf/local.yaml

--teacher takes a CSV with the columns file and trace into the table traces first (origin teacher). Only traces that are
well formed and name the video's own label are taught. --start is the model to begin with; the task `handwriting` can do
without: its `base`, which learned only to see, is trained first. --direct teaches the labels alone, without a trace: what
reasoning is held against.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
import transformers
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.settings import NONE
from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import naming, scope, training
from jobs.steps.inputs import NO_INPUT, with_inputs
from jobs.steps.recipes import Recipe
from jobs.steps.table_files import find, read_table
from lake.staging import Wave
from lake.waves import Work
from lake.write import stage
from models import identity
from models.handwriting.train import BASE, SIGHT, train_base
from models.training.journal import Journal
from models.training.trainer import TrainSpec
from schemas.files import FILES
from schemas.labels import LABELS
from schemas.recipes import RECIPES
from schemas.splits import SPLITS
from schemas.traces import TRACES
from schemas.videos import VIDEOS
from udfs.imported import IMPORTED_COLUMNS, read_traces
from udfs.training import align

TAKES_BUDGET = False


def lessons(traces: DataFrame, videos: DataFrame, labels: DataFrame, recipe_id: str) -> DataFrame:
    """What is taught: video_id, uri, text of well-formed teacher traces whose answer is the video's own.

    videos: those of the split; labels: of the task.
    """
    good = (F.col("recipe_id") == recipe_id) & (F.col("status") == "ok") & F.col("well_formed")
    return (
        traces.where(good)
        .join(videos.select("video_id", "uri"), "video_id")
        .join(labels.select("video_id", F.col("labels").alias("truth")), "video_id")
        .where("labels = truth")
        .select("video_id", "uri", "text")
    )


def answers(videos: DataFrame, labels: DataFrame, independent: bool) -> DataFrame:
    """What is taught without traces: video_id, uri, text, which is the answer alone. Arguments as of `lessons`."""
    named = F.concat_ws(", ", "labels")
    said = F.when(named != "", named).otherwise(NONE) if independent else F.col("label")
    told = labels.where("labels IS NOT NULL").select(
        "video_id", F.format_string("<answer>%s</answer>", said).alias("text")
    )
    return videos.select("video_id", "uri").join(told, "video_id")


def teacher_recipe(run: Run, teacher: str) -> Recipe:
    """Identity of the teacher's traces: who wrote them, and how they are read."""
    value = identity.teacher_recipe(
        teacher=teacher,
        source=run.settings.ingest.source,
        labels=list(run.labels),
        grammar=run.settings.rollout.grammar,
    )
    return Recipe(identity.digest(value), value, "")


def take_in(run: Run, path: str, recipe: Recipe) -> None:
    """Publish a teacher's traces; one that cannot be read has its status. Rows without exactly one video are counted."""
    run.waves.must_be_open(TRACES)
    find("--teacher", path)
    table = read_table(run.lake.spark, path)
    if not {"file", "trace"} <= set(table.columns):
        raise UsageError(
            f"--teacher {path}: expected the columns file and trace, found {', '.join(table.columns) or 'nothing'}"
        )
    named = table.select(
        naming.name_of(F.col("file")).alias("external_id"),
        F.col("trace").alias("text"),
    )
    videos = naming.named_videos(run.lake.read(FILES), run.settings.ingest.source, named).where("videos = 1")
    ids = named.join(videos.select("external_id", F.col("known_id").alias("video_id")), "external_id")
    texts = ids.join(run.lake.read(VIDEOS).select("video_id", "ingested_on"), "video_id")
    run.register(RECIPES, recipe.id, recipe.json)
    known = {
        "task": F.lit(run.task),
        "recipe_id": F.lit(recipe.id),
        "input_digest": F.lit(NO_INPUT),
        "rollout_index": F.lit(0),
        "attempt": F.lit(0),
        "engine": F.lit(recipe.json["teacher"]),
        "created_at": F.current_timestamp(),
    }

    def write(wave: Wave) -> Work:
        rows = texts.select("video_id", "ingested_on", "text")
        read = rows.mapInArrow(
            read_traces(recipe.json["grammar"], run.labels, run.label_set.independent),
            from_arrow_schema(IMPORTED_COLUMNS),
        )
        return [stage(wave, TRACES, read.withColumns(known))], {}

    landed = run.waves.make(write, run.record.versions | {"recipe_id": recipe.id}).landed[TRACES.name]
    run.record.add(
        {
            "teacher_traces": landed.rows,
            "teacher_traces_known": landed.known,
            "teacher_traces_without_video": named.join(ids, "external_id", "left_anti").count(),
        }
    )
    if landed.known:
        run.record.say(
            f"{landed.known} teacher traces were here already and stay as they are, whatever the file says now"
        )


def taught(run: Run, recipe: Recipe, direct: bool) -> DataFrame:
    """The lessons of the split align, each with what its prompt says beside the video: columns of lessons.COLUMNS."""
    mine = scope.of_split(run, "align")
    labels = run.lake.view("current_labels").where(F.col("task") == run.task)
    asked = (
        answers(mine.videos, labels, run.label_set.independent)
        if direct
        else lessons(mine.of(run.lake.read(TRACES)), mine.videos, labels, recipe.id)
    )
    told = asked.join(labels.select("video_id", "labels"), "video_id")
    return with_inputs(run, list(run.settings.rollout.texts.items()), told).withColumnRenamed("input_text", "said")


def run(run: Run, arguments: argparse.Namespace) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.direct and arguments.teacher is not None:
        raise UsageError("align: --direct teaches no traces; leave --teacher out")
    recipe = teacher_recipe(run, arguments.by)
    if arguments.teacher is not None:
        take_in(run, arguments.teacher, recipe)
    out, chosen, seed = arguments.out, run.settings.align, arguments.seed
    found = training.lessons(run, out, taught(run, recipe, arguments.direct))
    run.record.add({"lessons": len(found)})
    if not len(found):
        raise UsageError(
            "align: no labelled video in the split align: ingest some with --split align"
            if arguments.direct
            else "align: no teacher trace of a labelled video in the split align; ingest videos with --split align and give "
            "their traces with --teacher FILE.csv"
        )
    began = time.monotonic()
    start = training.model_folder(run, "--start", arguments.start) if arguments.start else base(run, out, seed)
    run.record.add({"seconds_base": round(time.monotonic() - began)})
    training.check_disjoint(run, "align", found, start)
    began = time.monotonic()
    spec = TrainSpec(
        chosen.steps, chosen.learning_rate, chosen.warmup, checkpoint_every=run.settings.training.checkpoint_every
    )
    told = training.facts(run, "align", start, found, seed, chosen.model_dump(exclude={"micro_batch"}))
    work = training.training(run, out, start, spec, told)
    training.in_processes(run, align, work, chosen.batch, chosen.micro_batch, seed)
    run.record.add({"seconds_align": round(time.monotonic() - began), "steps_align": spec.steps, "seed": seed})
    alias = "direct" if arguments.direct else "aligned"
    training.register(run, out, "align", alias, start, found, told, [VIDEOS, LABELS, SPLITS, TRACES])


def base(run: Run, out: Path, seed: int) -> Path:
    """The embedded benchmark's stand-in for a pretrained model. Raises UsageError for any other task."""
    if run.task != "handwriting":
        raise UsageError(f"align: task {run.task} needs a pretrained model to begin with: --start FOLDER")
    torch.set_num_threads(run.settings.training.threads or os.cpu_count() or 1)
    steps = SIGHT.steps + BASE.steps
    journal = Journal(out / training.BASE_JOURNAL, "base", steps, ("sight/loss", "loss"), run.record.quiet)
    train_base(out / "base", seed, journal, SIGHT, BASE, out / "base-checkpoints")
    return out / "base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", metavar="FILE.csv", help="teacher traces to take in first: columns file, trace")
    parser.add_argument(
        "--by", default="teacher", metavar="NAME", help="who wrote them: traces of two teachers stay apart"
    )
    parser.add_argument("--direct", action="store_true", help="teach the label alone, without a trace")
    parser.add_argument(
        "--start", metavar="MODEL", help="model to begin with: folder, or name or id of a registered one"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="goes on where it stopped if it is there"
    )
    parser.add_argument("--seed", type=int, default=0)


def main() -> int:
    return cli.main(["align", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

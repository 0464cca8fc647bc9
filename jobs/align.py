"""align: stage 1, cold start - teach the reasoning model on teacher traces of the split `align`.

    deepintuit align --teacher traces.csv --out build/aligned --conf conf/local.yaml [--start FOLDER]

--teacher takes a CSV with the columns file and trace into the table traces first (origin teacher). Only traces that are
well formed and name the video's own label are taught. --start is the model to begin with; the task `handwriting` can do
without: its `base`, which learned only to see, is trained first.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
import transformers
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs import cli, labelfile, recipe, staging
from jobs.recipe import Recipe
from jobs.run import Run, UsageError
from models import identity, prompts, storage
from models.alignment import Example, align, epochs
from models.decode_pool import read_video
from models.frame_cache import FrameCache
from models.frames import FrameSpec
from models.handwriting.train import BASE, SIGHT, train_base
from models.trainer import OnMetric, TrainSpec
from schemas.files import FILES
from schemas.metrics import METRICS
from schemas.recipes import RECIPES
from schemas.table import note_once
from schemas.traces import TRACES
from schemas.videos import VIDEOS
from udfs.imported import IMPORTED_COLUMNS, read_traces

TAKES_BUDGET = False


def lessons(
    traces: DataFrame, videos: DataFrame, labels: DataFrame, splits: DataFrame, task: str, recipe_id: str
) -> DataFrame:
    """What is taught: video_id, uri, text of well-formed teacher traces whose label is the video's own."""
    mine = splits.where((F.col("task") == task) & (F.col("split") == "align")).select("video_id")
    truth = labels.where(F.col("task") == task).select("video_id", F.col("label").alias("truth"))
    return (
        traces.where((F.col("recipe_id") == recipe_id) & (F.col("status") == "ok") & F.col("well_formed"))
        .join(mine, "video_id", "left_semi")
        .join(truth, "video_id")
        .where("label = truth")
        .join(videos.select("video_id", "uri"), "video_id")
        .select("video_id", "uri", "text")
        .orderBy("uri")
    )


def teacher_recipe(run: Run) -> Recipe:
    """Identity of the teacher's traces: who wrote them and how they are read."""
    value = {
        "origin": "teacher",
        "source": run.settings.ingest.source,
        "labels": list(run.labels),
        "grammar": run.settings.rollout.grammar,
    }
    return Recipe(identity.digest(value), value, "")


def take_in(run: Run, path: str, what: Recipe) -> None:
    """Publish a teacher's traces; one that cannot be read has its status. Rows without exactly one video are counted."""
    labelfile.find("--teacher", path)
    table = run.spark.read.csv(storage.absolute(path), header=True, multiLine=True, escape='"')
    if not {"file", "trace"} <= set(table.columns):
        raise UsageError(
            f"--teacher {path}: expected the columns file and trace, found {', '.join(table.columns) or 'nothing'}"
        )
    named = table.select(
        labelfile.external_id(F.col("file"), run.settings.ingest.extensions).alias("external_id"),
        F.col("trace").alias("text"),
    )
    videos = labelfile.named_videos(run.read(FILES), run.settings.ingest.source).where("videos = 1")
    known = videos.select("external_id", F.col("known_id").alias("video_id"))
    run.register(RECIPES, what.id, what.json)

    def write(wave: staging.Wave) -> staging.Manifest:
        read = named.join(known, "external_id").select("video_id", "text")
        rows = read.mapInArrow(read_traces(what.json["grammar"], run.labels), from_arrow_schema(IMPORTED_COLUMNS))
        output = staging.stage(run.spark, wave, TRACES, imported_rows(rows, run.task, what.id), f"traces/{what.id}")
        return run.manifest(wave, [output])

    settled = staging.commit(run.spark, run.next_wave(), write)
    unknown = named.join(known, "external_id", "left_anti").count()
    landed = settled.landed["traces"]
    run.add(
        {
            "teacher_traces": landed.rows,
            "teacher_traces_known": landed.known,
            "teacher_traces_without_video": unknown,
        }
    )
    if landed.known:
        run.say(f"{landed.known} teacher traces were here already and stay as they are, whatever the file says now")


def imported_rows(rows: DataFrame, task: str, recipe_id: str) -> DataFrame:
    """Imported traces as rows of the table traces; what only an engine knows is NULL."""
    known = {
        "task": F.lit(task),
        "recipe_id": F.lit(recipe_id),
        "rollout_index": F.lit(0),
        "attempt": F.lit(0),
        "engine": F.lit("teacher"),
        "created_at": F.current_timestamp(),
    }
    columns = [column for column in TRACES.spark_schema() if column.name != "wave_id"]
    return rows.select(
        *[
            F.col(column.name)
            if column.name in rows.columns
            else known.get(column.name, F.lit(None)).cast(column.dataType).alias(column.name)
            for column in columns
        ]
    )


def run(run: Run, arguments: argparse.Namespace) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    what = teacher_recipe(run)
    if arguments.teacher is not None:
        take_in(run, arguments.teacher, what)
    taught = lessons(
        run.read(TRACES), run.read(VIDEOS), run.view("current_labels"), run.view("current_splits"), run.task, what.id
    ).collect()
    if not taught:
        raise UsageError(
            "align: no teacher trace of a labelled video in the split align; ingest videos with --split align and give "
            "their traces with --teacher FILE.csv"
        )
    run.add({"lessons": len(taught)})
    figures: list[dict] = []

    def on_metric(phase: str, name: str, step: int, value: float) -> None:
        figures.append(
            {"run_id": run.run_id, "name": name, "step": step, "slice": phase, "value": value, "at": datetime.now(UTC)}
        )
        if name.endswith("loss") and step % 50 == 0:
            run.say(f"{phase}: {name} at step {step}: {value:.3f}")

    out, settings = arguments.out, run.settings
    torch.set_num_threads(os.cpu_count() or 1)
    began = time.monotonic()
    start = arguments.start or base(run, out, arguments.seed, partial(on_metric, "base"))
    run.add({"seconds_base": round(time.monotonic() - began)})
    began = time.monotonic()
    spec = TrainSpec(settings.align.steps, settings.align.learning_rate, settings.align.warmup)
    frames = FrameCache(
        out / "frames",
        FrameSpec(**settings.frames.model_dump()),
        recipe.limits(settings),
        settings.align.cache_mb << 20,
    )
    prompt = prompts.user_text(
        settings.labels.prompt or prompts.DEFAULT_TEMPLATE, settings.labels.labels, settings.rollout.grammar
    )
    limits = recipe.limits(settings)

    def example(row: Row) -> Example:
        read = partial(read_video, row["uri"], row["video_id"], limits)
        return Example(partial(frames.load, row["video_id"], read), prompt, row["text"])

    align(
        Path(start),
        out / "model",
        epochs([example(row) for row in taught], settings.align.batch, arguments.seed),
        spec,
        settings.frames.fps,
        settings.align.micro_batch,
        checkpoints=out / "checkpoints" / "align",
        on_metric=partial(on_metric, "align"),
    )
    run.add({"seconds_align": round(time.monotonic() - began), "steps_align": spec.steps, "seed": arguments.seed})
    note_once(METRICS, run.root, figures, f"{run.run_id}/metrics")
    run.say(f"the aligned model is in {out / 'model'}: set model.path to it")


def base(run: Run, out: Path, seed: int, on_metric: OnMetric) -> Path:
    """The embedded benchmark's stand-in for a pretrained model. Raises UsageError for any other task."""
    if run.task != "handwriting":
        raise UsageError(f"align: task {run.task} needs a pretrained model to begin with: --start FOLDER")
    train_base(out / "base", seed, on_metric, SIGHT, BASE, out / "checkpoints")
    return out / "base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", metavar="FILE.csv", help="teacher traces to take in first: columns file, trace")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="model to begin with")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="goes on where it stopped if it is there"
    )
    parser.add_argument("--seed", type=int, default=0)


def main() -> int:
    return cli.main(["align", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

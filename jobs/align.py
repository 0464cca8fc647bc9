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
from functools import partial
from pathlib import Path

import torch
import transformers
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.settings import NONE
from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import naming, recipes, scope
from jobs.steps.inputs import NO_INPUT, with_inputs
from jobs.steps.metrics import metric_rows, write_once
from jobs.steps.recipes import Recipe
from jobs.steps.scope import Scope
from jobs.steps.table_files import find, read_table
from lake.staging import Wave
from lake.waves import Work
from lake.write import stage
from models import identity
from models.handwriting.train import BASE, SIGHT, train_base
from models.training.alignment import Example, align, epochs
from models.training.trainer import OnMetric, TrainSpec
from models.video.cache import FrameCache
from schemas.files import FILES
from schemas.recipes import RECIPES
from schemas.traces import TRACES
from schemas.videos import VIDEOS
from udfs.imported import IMPORTED_COLUMNS, read_traces
from udfs.reading import read_video

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


def taught(run: Run, recipe: Recipe, mine: Scope, direct: bool) -> list[Row]:
    """The lessons of the split align, each with what its prompt says beside the video. Raises UsageError without any."""
    labels = run.lake.view("current_labels").where(F.col("task") == run.task)
    asked = (
        answers(mine.videos, labels, run.label_set.independent)
        if direct
        else lessons(mine.of(run.lake.read(TRACES)), mine.videos, labels, recipe.id)
    )
    found = with_inputs(run, list(run.settings.rollout.texts.items()), asked).orderBy("uri").collect()
    if not found:
        raise UsageError(
            "align: no labelled video in the split align: ingest some with --split align"
            if direct
            else "align: no teacher trace of a labelled video in the split align; ingest videos with --split align and give "
            "their traces with --teacher FILE.csv"
        )
    return found


def run(run: Run, arguments: argparse.Namespace) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.direct and arguments.teacher is not None:
        raise UsageError("align: --direct teaches no traces; leave --teacher out")
    recipe = teacher_recipe(run, arguments.by)
    if arguments.teacher is not None:
        take_in(run, arguments.teacher, recipe)
    prompt = recipes.prompt_of(run.settings)
    rows = taught(run, recipe, scope.of_split(run, "align"), arguments.direct)
    run.record.add({"lessons": len(rows)})
    figures: list[dict] = []

    def on_metric(phase: str, name: str, step: int, value: float) -> None:
        figures.extend(metric_rows(run, {name: value}, phase, step=step))
        if name.endswith("loss") and step % 50 == 0:
            run.record.say(f"{phase}: {name} at step {step}: {value:.3f}")

    out, settings = arguments.out, run.settings
    torch.set_num_threads(os.cpu_count() or 1)
    began = time.monotonic()
    start = arguments.start or base(run, out, arguments.seed, partial(on_metric, "base"))
    run.record.add({"seconds_base": round(time.monotonic() - began)})
    began = time.monotonic()
    spec = TrainSpec(settings.align.steps, settings.align.learning_rate, settings.align.warmup)
    limits = recipes.limits(settings)
    frames = FrameCache(
        out / "frames",
        recipes.frame_spec(settings.frames.model_dump(), str(start)),
        limits,
        settings.align.cache_mb << 20,
    )

    def example(row: Row) -> Example:
        read = partial(read_video, row["uri"], row["video_id"], limits)
        return Example(partial(frames.load, row["video_id"], read), prompt, row["text"], row["input_text"] or "")

    align(
        Path(start),
        out / "model",
        epochs([example(row) for row in rows], settings.align.batch, arguments.seed),
        spec,
        settings.align.micro_batch,
        checkpoints=out / "checkpoints" / "align",
        on_metric=partial(on_metric, "align"),
    )
    run.record.add(
        {"seconds_align": round(time.monotonic() - began), "steps_align": spec.steps, "seed": arguments.seed}
    )
    write_once(run, figures)
    run.record.say(f"the aligned model is in {out / 'model'}: set model.path to it")


def base(run: Run, out: Path, seed: int, on_metric: OnMetric) -> Path:
    """The embedded benchmark's stand-in for a pretrained model. Raises UsageError for any other task."""
    if run.task != "handwriting":
        raise UsageError(f"align: task {run.task} needs a pretrained model to begin with: --start FOLDER")
    train_base(out / "base", seed, on_metric, SIGHT, BASE, out / "checkpoints")
    return out / "base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", metavar="FILE.csv", help="teacher traces to take in first: columns file, trace")
    parser.add_argument(
        "--by", default="teacher", metavar="NAME", help="who wrote them: traces of two teachers stay apart"
    )
    parser.add_argument("--direct", action="store_true", help="teach the label alone, without a trace")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="model to begin with")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="goes on where it stopped if it is there"
    )
    parser.add_argument("--seed", type=int, default=0)


def main() -> int:
    return cli.main(["align", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

"""align: stage 1, cold start - teach the reasoning model on teacher traces of the split `align`.

    deepintuit align --out build/aligned --conf conf/local.yaml [--start MODEL] [--traces RECIPE_ID]
    deepintuit align --direct --out build/direct --start MODEL --conf conf/local.yaml

The traces are those that `teach` took in last; --traces names others, by their recipe. Only traces that are well formed and
name the video's own label, as it is now, are taught. --start is the model to begin with; the task `handwriting` can do
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

import models.handwriting
from conf.sections import NONE
from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import scope, teachers, training
from jobs.steps.estimate import training as estimates
from jobs.steps.inputs import NO_INPUT, with_inputs
from jobs.steps.recipes import Recipe
from models.handwriting.train import BASE, READING, SIGHT, train_base
from models.training.journal import Journal
from models.training.trainer import TrainSpec
from schemas.labels import LABELS
from schemas.splits import SPLITS
from schemas.texts import TEXTS
from schemas.traces import TRACES
from schemas.videos import VIDEOS
from udfs.training import align

TAKES_BUDGET = False


def lessons(traces: DataFrame, videos: DataFrame, labels: DataFrame) -> DataFrame:
    """What is taught: video_id, uri, about, text of well-formed teacher traces whose answer is the video's own.

    `teach` has seen to that already; a label may have been corrected since. Of videos without a label it kept what several
    traces agree on. traces: of one recipe; videos: those of the split; labels: of the task; about: the digest of the text
    that the trace is about.
    """
    return (
        traces.where((F.col("status") == "ok") & F.col("well_formed"))
        .join(videos.select("video_id", "uri"), "video_id")
        .join(labels.select("video_id", F.col("labels").alias("truth")), "video_id", "left")
        .where("truth IS NULL OR labels = truth")
        .select("video_id", "uri", F.col("input_digest").alias("about"), "text")
    )


def answers(videos: DataFrame, labels: DataFrame, independent: bool) -> DataFrame:
    """What is taught without traces: video_id, uri, text, which is the answer alone. Arguments as of `lessons`; labels: that
    the task has."""
    named = F.concat_ws(", ", "labels")
    said = F.when(named != "", named).otherwise(NONE) if independent else F.col("label")
    told = labels.where("labels IS NOT NULL").select(
        "video_id", F.format_string("<answer>%s</answer>", said).alias("text")
    )
    return videos.select("video_id", "uri").join(told, "video_id")


def taught(run: Run, recipe: Recipe | None) -> DataFrame:
    """The lessons of the split align, each with what its prompt says beside the video: columns of lessons.COLUMNS.

    recipe: the teacher's, None for the labels alone.
    """
    mine = scope.of_split(run, "align")
    labels = run.lake.view("current_labels").where(F.col("task") == run.task)
    if recipe is None:
        known = training.of_task(run, labels.join(mine.videos.select("video_id"), "video_id", "left_semi"))
        asked = answers(mine.videos, known, run.label_set.independent).withColumn("about", F.lit(NO_INPUT))
    else:
        written = mine.within(run.lake.read(TRACES)).where(F.col("recipe_id") == recipe.id)
        asked = lessons(training.of_task(run, written), mine.videos, labels)
    told = asked.join(labels.select("video_id", "labels"), "video_id", "left")
    shown = with_inputs(run, list(run.settings.rollout.texts.items()), told)
    # A model that taught had read the text of its time: where that is another one now, its trace is about something else.
    current = shown.where((F.col("about") == NO_INPUT) | (F.col("about") == F.col("input_digest")))
    return current.withColumnRenamed("input_text", "said")


def run(run: Run, arguments: argparse.Namespace) -> None:
    with training.made(run, arguments.out) as out:
        train(run, arguments, out)


def train(run: Run, arguments: argparse.Namespace, out: Path) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.direct and arguments.traces is not None:
        raise UsageError("align: --direct teaches no traces; leave --traces out")
    recipe = None if arguments.direct else teachers.chosen(run, arguments.traces)
    if recipe is not None:
        run.record.versions["teacher"] = recipe.id
        run.record.say(f"learning from the traces {recipe.id} of {recipe.json['teacher']}")
    chosen, seed = run.settings.align, arguments.seed
    read_at = training.versions(run, [VIDEOS, LABELS, SPLITS, TRACES, TEXTS])
    found = training.lessons(run, out, taught(run, recipe))
    run.record.add({"lessons": len(found)})
    if not len(found):
        raise UsageError(
            f"align: expected right traces of videos in the split align, found none in {recipe.id} of "
            f"{recipe.json['teacher']}: `deepintuit teach` says why it refused some"
            if recipe
            else "align: no labelled video in the split align: ingest some with --split align"
        )
    training.check_lessons(run, "align", found)
    began = time.monotonic()
    start = training.model_folder(run, "--start", arguments.start) if arguments.start else base(run, out, seed)
    run.record.add({"seconds_base": round(time.monotonic() - began)})
    training.check_start(run, start)
    training.check_disjoint(run, "align", found.ids(), start)
    began = time.monotonic()
    spec = TrainSpec(
        chosen.steps, chosen.learning_rate, chosen.warmup, checkpoint_every=run.settings.training.checkpoint_every
    )
    told = training.facts(run, "align", start, found, seed, chosen.model_dump(exclude={"micro_batch"}))
    work = training.training(run, out, start, spec, told, chosen.lora)
    training.in_processes(run, align, work, chosen.batch, chosen.micro_batch, seed)
    run.record.add({"seconds_align": round(time.monotonic() - began), "steps_align": spec.steps, "seed": seed})
    alias = "direct" if arguments.direct else "aligned"
    training.register(run, out, "align", alias, start, found, told, read_at)


def estimate(run: Run, arguments: argparse.Namespace) -> None:
    """--dry-run; without --start of the embedded model, whose shape `base` has."""
    start = arguments.start or str(Path(models.handwriting.__file__).parent / "checkpoint")
    if arguments.start is None and run.task != "handwriting":
        raise UsageError(f"align: task {run.task} needs a pretrained model to begin with: --start FOLDER")

    def lessons() -> DataFrame:
        return taught(run, None if arguments.direct else teachers.chosen(run, arguments.traces))

    estimates.estimate(run, arguments, "align", start, lessons)


def base(run: Run, out: Path, seed: int) -> Path:
    """The embedded benchmark's stand-in for a pretrained model. Raises UsageError for any other task."""
    if run.task != "handwriting":
        raise UsageError(f"align: task {run.task} needs a pretrained model to begin with: --start FOLDER")
    torch.set_num_threads(run.settings.training.threads or os.cpu_count() or 1)

    def journal(phase: str, steps: int) -> Journal:
        return Journal(out / training.BASE_JOURNAL, f"base, {phase}", steps, ("loss",), run.record.quiet, f"{phase}/")

    train_base(out / "base", seed, journal, READING, SIGHT, BASE, out / "base-checkpoints")
    return out / "base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traces", metavar="RECIPE_ID", help="teacher traces to learn from (default the newest)")
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

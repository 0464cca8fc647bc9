"""rollout: K reasoning traces for every video that lacks them, in waves, oldest videos first.

deepintuit rollout --conf conf/local.yaml [--split calibrate] [--set rollout.n=8] [--max-videos 1000] [--deadline 2h]
deepintuit rollout --dry-run --conf conf/local.yaml [--device h100]
"""

from __future__ import annotations

import argparse
import sys

from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.run import Run
from jobs.steps import recipes, scope
from jobs.steps.estimate import serving
from jobs.steps.rollouts import roll_out, say_statuses
from schemas.splits import STAGES
from schemas.videos import VIDEOS

TAKES_MODEL = True


def run(run: Run, arguments: argparse.Namespace) -> None:
    plan, base = recipes.plan_of_settings(run.settings), recipes.of_settings(run.settings)
    if not any(recipe.id == base.id and k >= run.settings.rollout.n for recipe, k in plan):
        plan.append((base, run.settings.rollout.n))  # what calibrators take that are not adaptive
    for recipe, k in plan:
        chosen = scope.of_split(run, arguments.split, recipe)
        if arguments.split and not chosen.count:
            say_splits(run, arguments.split)
        roll_out(run, recipe, k, chosen)
    say_statuses(run)


def estimate(run: Run, arguments: argparse.Namespace) -> None:
    """--dry-run."""

    def ask() -> serving.Asked:
        recipe = recipes.of_settings(run.settings)
        return serving.Asked(recipe, run.settings.rollout.n, scope.of_split(run, arguments.split, recipe))

    serving.estimate(run, arguments, ask)


def say_splits(run: Run, split: str) -> None:
    """Where the videos are, if not in a split."""
    videos = run.lake.read(VIDEOS).select("video_id")
    mine = run.lake.view("current_splits").where(F.col("task") == run.task)
    counts = videos.join(mine, "video_id", "left").groupBy("split").count().collect()
    found = ", ".join(f"{row['split'] or 'no split'} {row['count']:,}" for row in counts) or "there is none"
    run.record.say(
        f"no video of the task {run.task} is in the split {split} (videos by split: {found}); splits come with labels: "
        "`deepintuit ingest --labels FILE [--split ...]`"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", choices=STAGES, help="only videos of this stage; without it, all videos")


def main() -> int:
    return cli.main(["rollout", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

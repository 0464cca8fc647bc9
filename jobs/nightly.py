"""nightly: whatever is new, with the live versions: ingest -> rollout -> score -> decide. Never trains.

    deepintuit nightly --source DIR_OR_GLOB_OR_URI --conf conf/local.yaml [--max-videos N] [--deadline 06:00]

New is what no live scorer of this task has scored yet; `backfill` brings older videos to newly promoted versions. Without
--source it takes on what is in the lake already. A second run right after starts no engine.
"""

from __future__ import annotations

import argparse
import sys

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import Decide
from jobs import cli, ingest, rollout, scorer, staging
from jobs.recipe import Recipe
from jobs.run import Run
from models import storage
from schemas.quarantine import QUARANTINE
from schemas.scores import SCORES
from schemas.videos import VIDEOS


def live_versions(run: Run) -> tuple[Recipe, scorer.Scorer]:
    """What promote made live. Raises RegistryError before the first promote."""
    live = run.registry.live(run.task)
    manifest = run.registry.calibrator(run.task, live["calibrator_id"])
    recipe = Recipe(manifest["recipe_id"], manifest["recipe"], manifest["model_path"])
    return recipe, scorer.of_manifest(manifest, Decide(**live["rule"]))


def unscored(run: Run) -> DataFrame:
    """Videos that no scorer of this task has scored while it was live; what a candidate tried does not count."""
    live = F.col("scorer_id").isin(run.registry.promoted(run.task))
    known = run.read(SCORES).where(live & (F.col("task") == run.task)).select("video_id")
    everything = rollout.in_scope(run.read(VIDEOS), run.view("current_splits"), run.task, None)
    return everything.join(known, "video_id", "left_anti")


def refused_videos(quarantine: DataFrame, recipe_id: str, scorer_id: str) -> DataFrame:
    """Videos of which a trace or the score was refused by its contract."""
    key = F.split("row_key", "/")
    traces = (F.col("table") == "traces") & (key[1] == recipe_id)
    scores = (F.col("table") == "scores") & (key[1] == scorer_id)
    return quarantine.where(traces | scores).select(key[0].alias("video_id")).distinct()


def process(run: Run, recipe: Recipe, chosen: scorer.Scorer, scope: DataFrame) -> None:
    """Rollouts, scores and decisions of a scope; checks that scope = scored + quarantined + deferred."""
    fixed = storage.join(staging.run_folder(run.root, run.run_id), "scope")
    scope.write.parquet(fixed)  # what is in scope stays, whatever gets its score or loses its executor meanwhile
    scope = run.spark.read.parquet(fixed)
    videos = scope.count()
    rollout.roll_out(run, recipe, chosen.manifest["rollouts"], scope)
    scorer.score_all(run, chosen, scope)
    scored = run.read(SCORES).where(F.col("scorer_id") == chosen.id).select("video_id")
    left = scope.join(scored, "video_id", "left_anti")
    quarantined = left.join(refused_videos(run.read(QUARANTINE), recipe.id, chosen.id), "video_id", "left_semi").count()
    parts = {
        "videos_scored": scope.join(scored, "video_id", "left_semi").count(),
        "videos_quarantined": quarantined,
        "videos_deferred": left.count() - quarantined,
    }
    if sum(parts.values()) != videos:
        raise RuntimeError(f"{videos} videos in scope are not {parts}: videos were lost or doubled")
    run.add({"videos_in_scope": videos, **parts})
    run.deferred = run.deferred or parts["videos_deferred"] > 0
    run.say(
        f"{videos} videos in scope = {parts['videos_scored']} scored + {quarantined} quarantined "
        f"+ {parts['videos_deferred']} deferred"
    )


def run(run: Run, arguments: argparse.Namespace) -> None:
    recipe, chosen = live_versions(run)
    if arguments.source is not None:
        ingest.read_files(run, arguments.source)
    process(run, recipe, chosen, unscored(run))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", help="folder, glob, file or s3:// URI with new videos")


def main() -> int:
    return cli.main(["nightly", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

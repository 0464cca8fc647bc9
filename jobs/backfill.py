"""backfill: bring older videos to the live versions. Prints an estimate and does nothing until told --yes.

deepintuit backfill --since 2026-01-01 [--until 2026-06-30] --conf conf/local.yaml [--yes]
"""

from __future__ import annotations

import argparse
import sys
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import cli, nightly, rollout, scorer
from jobs.progress import clock
from jobs.run import Run
from schemas.quarantine import QUARANTINE
from schemas.scores import SCORES
from schemas.traces import TRACES
from schemas.videos import VIDEOS


def between(videos: DataFrame, since: date | None, until: date | None) -> DataFrame:
    """Videos ingested from `since` to `until`, both days included, UTC."""
    day = F.to_date("ingested_at")
    chosen = videos if since is None else videos.where(day >= F.lit(since))
    return chosen if until is None else chosen.where(day <= F.lit(until))


def run(run: Run, arguments: argparse.Namespace) -> None:
    recipe, chosen = nightly.live_versions(run)
    everything = rollout.in_scope(run.read(VIDEOS), run.view("current_splits"), run.task, None)
    scored = run.read(SCORES).where(F.col("scorer_id") == chosen.id).select("video_id")
    scope = between(everything, arguments.since, arguments.until).join(scored, "video_id", "left_anti")
    estimate(run, recipe.id, chosen, scope)
    if arguments.yes:
        nightly.process(run, recipe, chosen, scope)
    else:
        run.say("nothing was done; the same command with --yes does it")


def estimate(run: Run, recipe_id: str, chosen: scorer.Scorer, scope: DataFrame) -> None:
    """Say how much there is to do, and how long it takes at the speed measured last."""
    attempts = run.settings.waves.max_attempts
    todo = rollout.pending(
        scope, run.read(TRACES), run.read(QUARANTINE), recipe_id, chosen.manifest["rollouts"], attempts
    )
    rollouts = todo.agg(F.sum(F.size("missing"))).first()[0] or 0
    rate = rollout.measured_rate(run, recipe_id)
    run.add({"estimated_videos": scope.count(), "estimated_rollouts": rollouts})
    speed = rate or run.settings.waves.first_rate
    run.say(
        f"{run.counts['estimated_videos']:,} videos lack a score under {chosen.id}; {rollouts:,} rollouts are missing: "
        f"about {clock(rollouts / speed)} at {speed:.1f} rollouts/s ({'measured' if rate else 'assumed'})"
    )


def day(text: str) -> date:
    """An argument that names a day."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a day such as 2026-01-31, found {text}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", type=day, metavar="YYYY-MM-DD", help="first day of ingestion, UTC")
    parser.add_argument("--until", type=day, metavar="YYYY-MM-DD", help="last day of ingestion, UTC")
    parser.add_argument("--yes", action="store_true", help="do it")


def main() -> int:
    return cli.main(["backfill", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

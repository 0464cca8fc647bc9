"""backfill: bring older videos to the live versions. Prints an estimate and does nothing until told --yes.

    deepintuit backfill --since 2026-01-01 [--until 2026-06-30] --conf conf/local.yaml [--yes]

A newly promoted scorer gets the rollouts and scores that it lacks; a new decision threshold only its decisions.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date

from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.progress import clock
from jobs.runtime.run import Run
from jobs.steps import scope, scorers
from jobs.steps.inputs import with_inputs
from jobs.steps.rollouts import measured_rate, missing
from jobs.steps.scope import Scope
from jobs.steps.scorers import Scorer
from jobs.steps.serving import serve
from schemas.decisions import DECISIONS
from schemas.scores import SCORES
from schemas.videos import VIDEOS


def lacking(videos: dict[date, int], decisions: dict[date, int], since: date | None, until: date | None) -> list[date]:
    """Days of ingestion, both ends included, on which there are videos without a decision; from rows by day alone."""
    days = [day for day, count in videos.items() if decisions.get(day, 0) < count]
    return sorted(day for day in days if (since is None or day >= since) and (until is None or day <= until))


def chosen(run: Run, scorer: Scorer, since: date | None, until: date | None) -> Scope:
    """The videos of those days that lack a decision of the live scorer and rule."""
    versions = {"scorer_id": scorer.id, "rule_id": scorer.rule_id}
    # A video whose text has changed has several decisions, and their number says nothing of the others.
    decisions = {} if scorer.recipe.texts else run.lake.rows_by_day(DECISIONS, **versions)
    days = lacking(run.lake.rows_by_day(VIDEOS), decisions, since, until)
    videos, decided = run.lake.read(VIDEOS), scorers.decided_by(run, scorer)
    on_them = F.col("ingested_on").isin(*days)
    asked = with_inputs(run, scorer.recipe.texts, videos.where(on_them))
    lacking_one = asked.join(decided.where(on_them).select(*scope.KEY), list(scope.KEY), "left_anti")
    return scope.fix(run, "backfill", lacking_one)


def say_estimate(run: Run, scorer: Scorer, asked: Scope) -> None:
    """Say how much there is to do, and how long it takes at the speed measured last."""
    scores = run.lake.read(SCORES).where(F.col("scorer_id") == scorer.id)
    unscored = asked.without(scores).count() if asked.count else 0
    lacking = [missing(run, recipe, k, asked) for recipe, k in (scorer.at_most if unscored else ())]
    rollouts = sum(todo.agg(F.sum(F.size("missing"))).collect()[0][0] or 0 for todo in lacking)
    reviews = scorer.rollouts * unscored if len(scorer.recipes) > 1 else 0
    rate = measured_rate(run, scorer.recipe) if rollouts else None
    speed = rate or run.settings.waves.first_rate
    run.record.add({"estimated_videos": asked.count, "estimated_scores": unscored, "estimated_rollouts": rollouts})
    reviewed = f", up to {reviews:,} reviews of them" if reviews else ""
    run.record.say(
        f"{asked.count:,} videos lack a decision by scorer {scorer.id} and rule {scorer.rule_id}, {unscored:,} of them a "
        f"score; {'at most ' if scorer.is_adaptive else ''}{rollouts:,} rollouts are missing{reviewed}: about "
        f"{clock(rollouts / speed)} at {speed:.1f} rollouts/s ({'measured' if rate else 'assumed'})"
    )


def run(run: Run, arguments: argparse.Namespace) -> None:
    scorer = scorers.live(run)
    asked = chosen(run, scorer, arguments.since, arguments.until)
    say_estimate(run, scorer, asked)
    if arguments.yes and asked.count:
        serve(run, scorer, asked)
    elif asked.count:
        run.record.say("nothing was done; the same command with --yes does it")


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

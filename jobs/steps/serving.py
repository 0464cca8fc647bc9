"""Bringing videos to the live versions: rollouts, scores and decisions, wave by wave, and an account of every video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from operator import or_

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime.run import Run
from jobs.steps import scope, scorers
from jobs.steps.rollouts import roll_out, say_statuses
from jobs.steps.scope import Scope
from jobs.steps.scorers import Scorer
from jobs.steps.scoring import register, review, score_parts
from lake.audit import TWICE
from schemas.decisions import DECISIONS
from schemas.quarantine import QUARANTINE
from schemas.scores import SCORES
from schemas.traces import TRACES
from udfs.calibrator import open_calibrator


def serve(run: Run, scorer: Scorer, asked: Scope) -> Scope:
    """Rollouts, scores and decisions for a scope; checks that scope = scored + quarantined + deferred.

    Scored is what has its decision, too. Returns the videos that are deferred.
    """
    register(run, scorer)
    # What is wrong with it is told before a model runs, not after the first wave.
    open_calibrator(run.lake.registry.folder(run.task, scorer.manifest["calibrator_id"]))
    taken, most = asked, run.budget.max_videos
    if most is not None and most < asked.count:
        taken = scope.fix(run, "taken", scope.oldest(asked.videos, most))
    bring(run, scorer, taken)
    scored = asked.within(scorers.decided_by(run, scorer)).select(*scope.KEY)
    left = scope.fix(run, "left", asked.videos.join(scored, list(scope.KEY), "left_anti"))
    refused = refused_videos(asked.since(run.lake.read(QUARANTINE), "refused_at"), scorer)
    deferred = scope.fix(run, "deferred", left.videos.join(refused, list(scope.KEY), "left_anti"))
    parts = {
        "videos_scored": asked.videos.join(scored, list(scope.KEY), "left_semi").count(),
        "videos_quarantined": left.count - deferred.count,
        "videos_deferred": deferred.count,
    }
    if sum(parts.values()) != asked.count:
        raise RuntimeError(f"{asked.count} videos in scope are not {parts}: videos were lost or doubled")
    run.record.add({"videos_in_scope": asked.count, **parts})
    run.record.deferred = run.record.deferred or deferred.count > 0
    said = " + ".join(f"{count} {name.removeprefix('videos_')}" for name, count in parts.items())
    run.record.say(f"{asked.count} videos in scope = {said}")
    say_statuses(run)
    return deferred


def bring(run: Run, scorer: Scorer, taken: Scope) -> None:
    """Rollouts, scores and decisions for a scope, step by step of the scorer's plan: a video that one step settles is
    decided before the next begins, and takes no part in it."""
    left = taken
    for number, (recipe, k) in enumerate(scorer.plan):
        roll_out(run, recipe, k, left, partial(_follow, run, scorer), later=scorer.recipes[1:])
        # Those whose traces were there already, in part or all of them.
        left = scope.fix(run, f"rest-{number}", left.without(scorers.decided_by(run, scorer)))
        if left.count:
            review(run, scorer, left)
            score_parts(run, scorer, left)
        if number + 1 < len(scorer.plan):
            left = scope.fix(run, f"left-{number}", left.without(scorers.decided_by(run, scorer)))
            run.record.say(f"step {number + 1} of {len(scorer.plan)}: {left.count:,} videos need more rollouts")


def _follow(run: Run, scorer: Scorer, wave: Scope, files: Sequence[str]) -> None:
    """What comes after a wave of rollouts."""
    review(run, scorer, wave)
    # Of a calibrator that looks at the traces themselves nothing but these files has to be read.
    score_parts(run, scorer, wave, files if len(scorer.recipes) == 1 and not scorer.is_adaptive else None)


def refused_videos(quarantine: DataFrame, scorer: Scorer) -> DataFrame:
    """video_id, input_digest of what will have no decision: a trace, the score or the decision was refused."""
    parts = F.split("row_key", "/")
    video, version, digest, fourth = (F.get(parts, F.lit(place)) for place in range(4))  # NULL where a key is shorter
    rollout_index = fourth.try_cast("int")  # what more rollouts met than the scorer looks at concerns others
    table = F.col("table")
    most = [*scorer.plan, *((recipe, scorer.rollouts) for recipe in scorer.recipes[1:])]
    within = reduce(or_, [(version == recipe.id) & (rollout_index < k) for recipe, k in most])
    traces = (table == TRACES.name) & within
    scores = (table == SCORES.name) & (version == scorer.id)
    decisions = (table == DECISIONS.name) & (version == scorer.id) & (fourth == scorer.rule_id)
    refused = quarantine.where(F.col("reason") != TWICE)  # of a key that came twice one row was kept
    found = refused.where(traces | scores | decisions)
    return found.select(video.alias("video_id"), digest.alias("input_digest")).distinct()

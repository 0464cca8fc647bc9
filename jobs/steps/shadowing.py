"""The shadow: a candidate that scores what a night scores, beside the live versions and never in their place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from jobs.runtime.errors import explain
from jobs.runtime.run import Run
from jobs.steps import scope, scorers
from jobs.steps.inputs import with_inputs
from jobs.steps.scope import Scope
from jobs.steps.scorers import Scorer
from jobs.steps.scoring import register
from jobs.steps.serving import bring
from lake.commit import Fenced
from lake.storage import Damaged
from lake.waves import Superseded
from schemas.videos import VIDEOS

_COUNTED = ("rollouts", "traces", "reviews", "scores", "decisions", "engines", "lacking")


def owe(run: Run, served: Scope | None) -> list[date]:
    """Note the days of what a night has served, until the shadow has followed: the night may die before. Returns those that
    nights which died owe it already."""
    registry = run.lake.registry
    owed = registry.shadow_owes(run.task)
    if served is not None and served.count and (owed or _has_shadow(run)):
        registry.note_shadow_owes(run.task, {*owed, *(day.isoformat() for day in served.days)})
    return [date.fromisoformat(day) for day in owed]


def follow(run: Run, live: Scorer, served: Scope | None, owed: Sequence[date] = ()) -> None:
    """Roll out, score and decide the videos of a scope once more, by the shadow where there is one; with them those that the
    live versions have decided of days that are owed to it.

    Its counts are the run's, with `shadow_` before their names; shadow_lacking are videos that it has not decided, for want
    of time or because it failed: nobody comes back to them. A shadow that fails is told aloud, and fails nothing: what a
    gate stopped of it is dropped, as it would block the live versions, too.
    """
    counts, deferred, results = dict(run.record.counts), run.record.deferred, dict(run.record.versions)
    try:
        shadow = scorers.shadow(run)
        if shadow is not None and (shadow.id, shadow.rule_id) != (live.id, live.rule_id):
            with run.waves.expendable():
                _score(run, shadow, _asked(run, shadow, live, served, owed))
    except (Superseded, Fenced):  # this run's own end
        raise
    except Exception as error:
        run.record.warn(f"the shadow failed, the live versions did not: {explain(error)[0]}")
    finally:
        made = {name: run.record.counts.get(name, 0) - counts.get(name, 0) for name in _COUNTED}
        run.record.counts = counts | {f"shadow_{name}": count for name, count in made.items() if count}
        run.record.versions, run.record.deferred = results, deferred
    if owed or _has_shadow(run):
        run.lake.registry.note_shadow_owes(run.task, ())


def _asked(run: Run, shadow: Scorer, live: Scorer, served: Scope | None, owed: Sequence[date]) -> Scope:
    days = sorted({*owed, *(served.days if served else ())})
    ids = scorers.decided_by(run, live).where(scope.of_days(owed)).select("video_id")
    ids = ids.union(served.videos.select("video_id")) if served else ids
    videos = run.lake.read(VIDEOS).where(scope.of_days(days)).join(ids, "video_id", "left_semi")
    return scope.fix(run, "shadowed", with_inputs(run, shadow.recipe.texts, videos))


def _score(run: Run, shadow: Scorer, mine: Scope) -> None:
    if not mine.count:
        return
    run.record.say(f"the shadow {shadow.id} (calibrator {shadow.manifest['calibrator_id']}) scores the same videos")
    register(run, shadow)
    bring(run, shadow, mine)
    if lacking := mine.without(scorers.decided_by(run, shadow)).count():
        run.record.add({"lacking": lacking})
        run.record.warn(f"the shadow has no decision on {lacking:,} of {mine.count:,} videos")


def _has_shadow(run: Run) -> bool:
    try:
        return run.lake.registry.shadow(run.task) is not None
    except Damaged:  # told when it is to score
        return True

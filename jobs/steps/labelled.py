"""Labelled videos, and what was said of them, from the lake to the driver: what figures are computed from.

A test set is as large as people can label, and no larger than MOST_VIDEOS; of each trace only what is needed comes here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime.run import Run
from jobs.steps import facets, scope
from jobs.steps.scope import Scope
from models.calibration.features import TRACE_FIELDS, Trace
from models.evaluation.methods import Case, Score
from schemas.scores import SCORES
from schemas.trace_quality import TRACE_QUALITY

MOST_VIDEOS = 20_000
_READ = [name for name in TRACE_FIELDS if name not in ("observation", "think")]  # long, and no figure needs them
QUALITIES = (
    "follows_observation",
    "follows_think",
    "observation_right",
    "repetition",
    "token_nll",
    "label_entropy",
    "sibling_disagreement",
)


def labelled(run: Run, name: str, within: Scope) -> tuple[Scope, list[Case]]:
    """The videos of a scope that have a label, at most MOST_VIDEOS of them, chosen by their ids; cases in order of ids."""
    told = "labels" if run.label_set.independent else "label"
    labels = run.lake.view("current_labels").where((F.col("task") == run.task) & F.col(told).isNotNull())
    truth = within.videos.select("video_id").join(labels.select("video_id", "labels"), "video_id")
    if not run.label_set.independent:  # a label that the task has given up judges nothing
        truth = truth.where(F.col("labels")[0].isin(*run.labels))
    truth = truth.orderBy(F.xxhash64("video_id")).limit(MOST_VIDEOS)
    rows = truth.join(facets.clusters(run), "video_id", "left").join(facets.slices(run), "video_id", "left").collect()
    if len(rows) == MOST_VIDEOS:
        run.record.say(f"figures are of {MOST_VIDEOS:,} labelled videos, chosen by their ids")
    cases = [
        Case(row["video_id"], tuple(row["labels"]), row["cluster"] or row["video_id"], _pairs(row["slices"]))
        for row in sorted(rows, key=lambda row: row["video_id"])
    ]
    ids = run.lake.spark.createDataFrame([(case.video_id,) for case in cases], "video_id string")
    return scope.fix(run, name, within.videos.join(ids, "video_id", "left_semi")), cases


def _pairs(slices: Sequence[Any] | None) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((fact["name"], fact["value"]) for fact in slices or ()))


def traces_of(run: Run, within: Scope, cases: Sequence[Case], recipe_id: str, k: int) -> list[list[Trace]]:
    """The first k traces of each case under a recipe, those that there are, by index."""
    rows = within.of(run.lake.view("current_traces")).where(
        (F.col("recipe_id") == recipe_id) & (F.col("rollout_index") < k)
    )
    return _by_case(rows.select("video_id", *_READ), cases)


def quality_of(
    run: Run, within: Scope, cases: Sequence[Case], recipe_id: str, k: int, judge_id: str
) -> list[list[Trace]]:
    """What the table trace_quality says of the same traces, by one judge: observation_label and QUALITIES."""
    rows = within.of(run.lake.read(TRACE_QUALITY)).where(
        (F.col("recipe_id") == recipe_id) & (F.col("rollout_index") < k) & (F.col("judge_id") == judge_id)
    )
    told = F.struct("attempt", "observation_label", *QUALITIES)
    latest = rows.groupBy("video_id", "rollout_index").agg(F.max_by(told, "attempt").alias("t"))
    return _by_case(latest.select("video_id", "rollout_index", "t.*"), cases)


def _by_case(rows: DataFrame, cases: Sequence[Case]) -> list[list[Trace]]:
    found: dict[str, list[Trace]] = defaultdict(list)
    for row in rows.collect():
        found[row["video_id"]].append(row.asDict())
    return [sorted(found[case.video_id], key=lambda trace: trace["rollout_index"]) for case in cases]


def scores_of(run: Run, within: Scope, cases: Sequence[Case], scorer_id: str) -> list[Score | None]:
    """What a scorer says of each case; None where it has not scored it."""
    rows = within.of(run.lake.read(SCORES).where(F.col("scorer_id") == scorer_id))
    found = {
        row["video_id"]: Score(row["probs"], row["rollouts_ok"] > 0)
        for row in rows.select("video_id", "probs", "rollouts_ok").collect()
    }
    return [found.get(case.video_id) for case in cases]

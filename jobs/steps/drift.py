"""Whether what is scored still looks like what the calibrator was judged by: what prediction sets and precisions promise
holds for videos that are exchangeable with those."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.stats import ks_2samp

from jobs.runtime.run import Run
from jobs.steps import rules, scorers
from jobs.steps.scope import Scope
from jobs.steps.scorers import Scorer
from models.calibration.judged import Judged, numbers
from models.evaluation.intervals import Interval, mean

_NEWEST = 5000  # decisions
_LEARNED_NOTHING = ("vote", "vlm", "both")  # from the videos that they were judged by, but for a number or two
_FEW = 50  # of either, below which nothing is said
_FAR, _CHANCE = 0.1, 1e-3  # Kolmogorov-Smirnov distance that matters, and how often chance alone may show one so large


def drift(run: Run, scorer: Scorer) -> dict[str, Any] | None:
    """How far apart the certainties of the newest videos are from those before, by the two-sample test of Kolmogorov and
    Smirnov: videos, since (what they are held against), distance, chance, doubtful. None where there are too few.

    Before are the videos that the calibrator was judged by, where it learned nothing from them; else the first that were
    decided: what has learned from videos is surer of those. Those that taught it are left out everywhere.
    """
    judged = rules.judged_of(run, scorer.manifest)
    if judged is None:
        return None
    decided = scorers.decided_by(run, scorer).select("video_id", "top_prob", "ingested_on", "decided_at")
    newest = _certainties(decided.orderBy(F.desc("ingested_on"), F.desc("decided_at")), judged)
    if scorer.manifest["kind"] in _LEARNED_NOTHING:
        since, before = "calibration", judged.certainty()
    else:
        since, before = "promotion", _certainties(decided.orderBy("ingested_on", "decided_at"), judged)
    if min(len(before), len(newest)) < _FEW:
        return None
    found = ks_2samp(before, newest)
    distance, chance = float(found.statistic), float(found.pvalue)
    doubtful = distance > _FAR and chance < _CHANCE
    return {"videos": len(newest), "since": since, "distance": distance, "chance": chance, "doubtful": doubtful}


def _certainties(decided: DataFrame, judged: Judged) -> np.ndarray:
    """Of the first of these decisions, without those on videos that the calibrator was judged by."""
    rows = decided.limit(_NEWEST).collect()
    known = np.isin(numbers(row["video_id"] for row in rows), judged.video)
    return np.array([row["top_prob"] for row in rows])[~known]


def say(run: Run, found: dict[str, Any] | None) -> None:
    """A warning where what was promised is doubtful."""
    if found and found["doubtful"]:
        run.record.warn(
            f"the newest {found['videos']:,} decisions are not as certain as those at {found['since']} "
            f"(distance {found['distance']:.2f}): videos have changed, and prediction sets and precisions may not hold what "
            "they promise; label some of the new ones, then `calibrate` and `promote`"
        )


def coverage(
    run: Run, scorer: Scorer, tested: Scope, truth: dict[str, str], clusters: dict[str, str]
) -> Interval | None:
    """How often the prediction sets of a scorer hold the right label of labelled videos; None without such decisions.

    truth, clusters: by video, those that are asked about. Warns where it is sure to be below what the rule asks.
    """
    rows = tested.of(scorers.decided_by(run, scorer)).select("video_id", "prediction_set").collect()
    held = {
        row["video_id"]: truth[row["video_id"]] in row["prediction_set"] for row in rows if row["video_id"] in truth
    }
    if not held:
        return None
    cluster = np.unique([clusters[video_id] for video_id in held], return_inverse=True)[1]
    found, asked = mean(np.array(list(held.values()), float), cluster), scorer.rule["coverage"]
    if found.high < asked:
        why = (
            "these videos are not like those that it was calibrated on"
            if "sets" in scorer.rule
            else "sets by mass promise nothing: decide.sets: lac or aps"
        )
        run.record.warn(
            f"prediction sets hold the right label of {found} of the videos where {asked:g} is asked: {why}"
        )
    return found

"""Out-of-fold scores: what a candidate says of the very videos that it is made from, each by what the others taught.

They stand in the table scores under a scorer of their own, which nothing serves: `compare` and `sql` read them.
"""

from __future__ import annotations

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.runtime.run import Run
from lake.staging import Wave
from lake.waves import Work
from lake.write import stage
from models import identity
from models.calibration.crossfit import HeldOut
from schemas.scorers import SCORERS
from schemas.scores import SCORES
from udfs.calibrator import SCORE_COLUMNS, as_scores


def publish(
    run: Run, calibrator_id: str, recipe_id: str, k: int, folds: int, rows: DataFrame, own: HeldOut, ids: np.ndarray
) -> str:
    """A row of scores for each of these videos; returns the id of their scorer. Doing it again adds nothing.

    rows: of examples (see steps/examples.py), of a recipe; own: what was said of the videos `ids`, in their order.
    """
    value = {"recipes": [recipe_id], "rollouts": k, "calibrator_id": calibrator_id}
    value |= {"out_of_fold": folds}
    scorer_id = identity.digest(value)
    run.register(SCORERS, scorer_id, value)
    planned_at = run.lake.version(SCORES)
    there = run.lake.read(SCORES).where(F.col("scorer_id") == scorer_id).select("video_id")
    said = run.lake.spark.createDataFrame(
        list(zip(ids.tolist(), own.probs.tolist(), strict=True)), "video_id string, said array<double>"
    )
    todo = rows.join(said, "video_id").join(there, "video_id", "left_anti")
    facts = {"task": F.lit(run.task), "scorer_id": F.lit(scorer_id), "scored_at": F.current_timestamp()}

    def write(wave: Wave) -> Work:
        made = todo.mapInArrow(as_scores(run.labels), from_arrow_schema(SCORE_COLUMNS))
        return [stage(wave, SCORES, made.withColumns(facts), planned_at)], {}

    landed = run.waves.make(write, run.record.versions).landed[SCORES.name]
    run.record.add({"out_of_fold_scores": landed.rows})
    return scorer_id

"""What calibrators learn from: labelled videos with their traces, and what is seen of them, as arrays on the driver."""

from __future__ import annotations

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.runtime.run import Run
from lake import parquet
from models.calibration.crossfit import Examples
from models.calibration.features import FeatureSpec
from schemas.label_set import LabelSet
from udfs.calibrator import FEATURE_COLUMNS, featurize


def labelled(traced: DataFrame, labels: DataFrame, shared: DataFrame, wanted: LabelSet, folds: int) -> DataFrame:
    """Labelled videos with their traces: the columns of `traced`, targets (for each label, 1 where it applies), fold and
    cluster.

    shared: video_id, cluster, of videos that share a source with others: they are in one fold. Which that is depends on its
    name alone, so it stays when more arrive.
    """
    targets = F.array(*[F.array_contains("labels", label).cast("long") for label in wanted.slugs])
    own = F.xxhash64(F.coalesce("cluster", "video_id"))
    rows = (
        traced.join(labels.select("video_id", "labels"), "video_id")
        .join(shared, "video_id", "left")
        .where("labels IS NOT NULL")
        .withColumns({"targets": targets, "fold": F.pmod(own, F.lit(folds)), "cluster": own})
        .drop("labels")
    )
    # A label that the task has given up teaches nothing.
    return rows if wanted.independent else rows.where("aggregate(targets, 0L, (a, n) -> a + n) = 1")


def gather(run: Run, name: str, rows: DataFrame, spec: FeatureSpec) -> Examples:
    """The rows of `labelled` as vectors, in the order of their ids: sums in floating point depend on it."""
    made = run.path(name)
    rows.mapInArrow(featurize(spec), from_arrow_schema(FEATURE_COLUMNS)).write.mode("overwrite").parquet(made)
    parts = list(parquet.batches(made, ["video_id", "features", "targets", "fold", "cluster"]))
    ids = np.concatenate(
        [*(part.column("video_id").to_numpy(zero_copy_only=False) for part in parts), np.empty(0, object)]
    )
    order = np.argsort(ids)

    def matrix(name: str, width: int, kind: type) -> np.ndarray:
        flat = [part.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False) for part in parts]
        return np.concatenate([*flat, np.empty(0)]).astype(kind).reshape(-1, width)[order]

    def column(name: str) -> np.ndarray:
        return np.concatenate([*(part.column(name).to_numpy() for part in parts), np.empty(0, np.int64)])[order]

    applies = matrix("targets", len(spec.labels), np.int64)
    targets = applies if spec.independent else applies.argmax(1) if len(applies) else np.empty(0, np.int64)
    return Examples(matrix("features", len(spec.names), np.float64), targets, column("fold"), column("cluster"))

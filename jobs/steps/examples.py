"""What calibrators learn from: labelled videos with their traces, and what is seen of them, as arrays on the driver."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from scipy.sparse import csr_matrix

from jobs.runtime.run import Run
from jobs.steps import boundary
from lake import parquet
from models.calibration.crossfit import Examples
from models.calibration.features import FeatureSpec
from schemas import examples
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


def check(run: Run, rows: DataFrame, k: int) -> str:
    """Hold the rows of a file against their contract; returns the digest that names them. Raises Doubted."""
    staged = boundary.check(run, "calibrate", rows, examples.contract(run.label_set.independent, k), examples.KEY)
    named = F.to_json(F.struct("video_id", "input_digest", "targets", "cluster", "traces"))
    hashes = sorted(row[0] for row in staged.select(F.sha2(named, 256)).collect())
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def gather(run: Run, name: str, rows: DataFrame, spec: FeatureSpec) -> Examples:
    """The rows of `labelled` as vectors, in the order of their ids: sums in floating point depend on it."""
    made = run.path(name)
    rows.mapInArrow(featurize(spec), from_arrow_schema(FEATURE_COLUMNS)).write.mode("overwrite").parquet(made)
    found = pa.concat_tables([FEATURE_COLUMNS.empty_table(), *parquet.batches(made, FEATURE_COLUMNS.names)])
    found = found.sort_by("video_id")
    applies = _flat(found["targets"]).reshape(-1, len(spec.labels))
    targets = applies if spec.independent else applies.argmax(1) if len(applies) else np.empty(0, np.int64)
    return Examples(
        features=_features(found, spec.width),
        targets=targets,
        fold=found["fold"].to_numpy(),
        cluster=found["cluster"].to_numpy(),
        video=found["video_id"].to_numpy(),
    )


def _features(found: pa.Table, width: int) -> Any:
    """Features [N, width]: of rows that tell places a sparse matrix."""
    values = _flat(found["features"])
    if found["places"].null_count == len(found):
        return values.reshape(-1, width)
    lengths = found["features"].combine_chunks().value_lengths().to_numpy()
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((values, _flat(found["places"]), ends), shape=(len(found), width))


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False)

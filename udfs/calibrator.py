"""Features and scores inside Spark tasks: one row per video with its traces in, one row out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError

from lake import storage
from models.calibration.calibrator import Calibrator, load, probs_of_all, taken
from models.calibration.features import FeatureSpec, agreement

FEATURE_COLUMNS = pa.schema(
    [
        ("video_id", pa.string()),
        ("targets", pa.list_(pa.int64())),
        ("fold", pa.int64()),
        ("cluster", pa.int64()),
        ("features", pa.list_(pa.float64())),
        ("places", pa.list_(pa.int32())),  # of features that are told alone, where most are 0; else NULL
    ]
)
SCORE_COLUMNS = pa.schema(
    [
        ("video_id", pa.string()),
        ("input_digest", pa.string()),
        ("probs", pa.map_(pa.string(), pa.float64())),
        ("rollouts", pa.int32()),
        ("rollouts_ok", pa.int32()),
        ("agreement", pa.float64()),
        ("ingested_on", pa.date32()),
    ]
)
ArrowUdf = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def featurize(spec: FeatureSpec) -> ArrowUdf:
    """For mapInArrow: video_id, targets, fold, cluster, traces in; FEATURE_COLUMNS out."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = batch.to_pylist()
            made: Iterable[Any] = spec.matrix([row["traces"] for row in rows]) if rows else []
            features = [
                {"features": each, "places": None}
                if isinstance(each, np.ndarray)
                else {"features": each.data, "places": each.indices}
                for each in made
            ]
            known = ("video_id", "targets", "fold", "cluster")
            told = [{key: row[key] for key in known} | own for row, own in zip(rows, features, strict=True)]
            yield pa.RecordBatch.from_pylist(told, FEATURE_COLUMNS)

    return run


def open_calibrator(folder: str) -> Calibrator:
    """The calibrator in a folder of the registry. Raises storage.Damaged where it was cut short, or is not for this code."""
    manifest = storage.read_json(storage.join(folder, "manifest.json"))
    weights = storage.join(folder, "weights.safetensors")
    try:
        return load(manifest, storage.read_bytes(weights))
    except (SafetensorError, FileNotFoundError) as error:
        raise storage.Damaged(
            f"{weights}: expected the weights of a calibrator, found none ({error}): `deepintuit calibrate` with the "
            "settings of that time writes them anew, `deepintuit promote` makes another one live"
        ) from None
    except ValueError as error:
        raise storage.Damaged(f"{folder}: {error}") from None


def score(folder: str) -> ArrowUdf:
    """For mapInArrow: video_id, input_digest, ingested_on, traces in; SCORE_COLUMNS out, of videos whose traces are enough.

    folder: the calibrator's in the registry.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        calibrator = None
        for batch in batches:
            if calibrator is None:
                calibrator = open_calibrator(folder)
            enough = [
                row | {"traces": own}
                for row in batch.to_pylist()
                if (own := taken(calibrator, row["traces"])) is not None
            ]
            found = probs_of_all(calibrator, [row["traces"] for row in enough])
            rows = [_scored(row, own) for row, own in zip(enough, found, strict=True)]
            yield pa.RecordBatch.from_pylist(rows, SCORE_COLUMNS)

    return run


def as_scores(labels: Sequence[str]) -> ArrowUdf:
    """For mapInArrow: video_id, input_digest, ingested_on, traces, said (probabilities in the order of the labels) in;
    SCORE_COLUMNS out."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [_scored(row, dict(zip(labels, row["said"], strict=True))) for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, SCORE_COLUMNS)

    return run


def _scored(row: Mapping[str, Any], probs: Mapping[str, float]) -> dict[str, Any]:
    """A row of SCORE_COLUMNS."""
    traces = row["traces"]
    return {
        "video_id": row["video_id"],
        "input_digest": row["input_digest"],
        "ingested_on": row["ingested_on"],
        "probs": list(probs.items()),
        "rollouts": len(traces),
        "rollouts_ok": sum(trace["status"] == "ok" for trace in traces),
        "agreement": agreement(traces),
    }

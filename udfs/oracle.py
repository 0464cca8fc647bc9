"""The oracle teacher of the embedded benchmark inside Spark tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from models.engines.asking import seed_of
from models.handwriting.teacher import erring

ORACLE_COLUMNS = pa.schema([("video_id", pa.string()), ("text", pa.string())])


def oracle(rate: float, seed: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: video_id and digits (`3 5 2 9`) in; ORACLE_COLUMNS out, a trace that is wrong with probability rate.

    What is said of a video depends on rate, seed and its id, not on the videos beside it.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = [
                {
                    "video_id": row["video_id"],
                    "text": erring([int(d) for d in row["digits"].split()], rate, seed_of(seed, row["video_id"], 0)),
                }
                for row in batch.to_pylist()
            ]
            yield pa.RecordBatch.from_pylist(rows, ORACLE_COLUMNS)

    return run

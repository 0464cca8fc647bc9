"""Work that only keeps a Python worker from being idle: `DataFrame.mapInArrow(stay, schema)`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import pyarrow as pa

STAYED = pa.schema([("id", pa.int64())])
_TOGETHER_S = 0.2  # tasks of one stage that begin within it are in workers of their own


def stay(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows in, none out, after a moment."""
    time.sleep(_TOGETHER_S)
    for batch in batches:
        yield batch.slice(0, 0)

"""Work that only keeps Python workers from being idle: `DataFrame.mapInArrow(stay, schema)`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import pyarrow as pa

STAYED = pa.schema([("id", pa.int64())])
_SPREAD_S = 0.2  # so that one executor does not do it for all


def stay(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows in, none out, after a moment."""
    time.sleep(_SPREAD_S)
    for batch in batches:
        yield batch.slice(0, 0)

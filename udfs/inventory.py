"""What the stores say of files that an inventory only names, inside Spark tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from lake import storage

LISTED_COLUMNS = pa.schema(
    [("uri", pa.string()), ("etag", pa.string()), ("size", pa.int64()), ("modified_at", pa.timestamp("us", "UTC"))]
)
_AT_ONCE = 16  # questions that wait for a store side by side


def look_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For mapInArrow: uri in, LISTED_COLUMNS out, a row for every row; of a file that is not there the etag is 'absent'."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for batch in batches:
            yield pa.RecordBatch.from_pylist(list(pool.map(_entry, batch.column("uri").to_pylist())), LISTED_COLUMNS)


def _entry(uri: str) -> dict[str, Any]:
    try:
        return asdict(storage.entry(uri)) | {"uri": uri}
    except (FileNotFoundError, ValueError, storage.StoreError):  # reading it will say what is wrong with it
        return {"uri": uri, "etag": "absent", "size": None, "modified_at": None}

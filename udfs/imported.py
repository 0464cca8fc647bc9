"""Traces that somebody else wrote, read into the columns of the table traces inside Spark tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from models.language import grammar

READ_COLUMNS = pa.schema(  # what is found in a text that somebody else wrote
    [
        ("status", pa.string()),
        ("observation", pa.string()),
        ("think", pa.string()),
        ("answer", pa.string()),
        ("label", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("well_formed", pa.bool_()),
    ]
)
IMPORTED_COLUMNS = pa.schema(
    [
        ("video_id", pa.string()),
        ("ingested_on", pa.date32()),
        ("split", pa.string()),
        ("rollout_index", pa.int32()),
        ("text", pa.string()),
        *READ_COLUMNS,
    ]
)


def read_traces(
    kind: str, labels: tuple[str, ...], several: bool
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: the columns of IMPORTED_COLUMNS before `status`, and duration_s, in; IMPORTED_COLUMNS out, a row for
    every row. several: labels an answer may name any number of."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = []
            for row in batch.to_pylist():
                found = grammar.parse(row["text"] or "", kind, labels, several=several, seconds=row["duration_s"])
                rows.append(row | {name: getattr(found, name) for name in READ_COLUMNS.names})
            yield pa.RecordBatch.from_pylist(rows, IMPORTED_COLUMNS)

    return run

"""What traces argue for, by the task's own rule, inside Spark tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from models.language.rule import argued_by, load_rule

ARGUED_COLUMNS = {"seen": "observation", "thought": "think"}  # and the segment that each is about


def argued(rule: str | None) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: any columns with observation and think in; the same with ARGUED_COLUMNS behind them out, the label
    that each segment argues for, NULL for none and without a rule."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = load_rule(rule) if rule else None
        for batch in batches:
            for name, segment in ARGUED_COLUMNS.items():
                labels = [argued_by(found, text) for text in batch[segment].to_pylist()]
                batch = batch.append_column(name, pa.array(labels, pa.string()))
            yield batch

    return run

"""Lessons for a model that reviews traces, inside Spark tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import pyarrow as pa

from models.language.review import said
from models.training.lessons import COLUMNS


def lessons_of(codes: Mapping[str, str]) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: video_id, uri, input_text, targets (1 at the place of the one right label), traces in; rows of
    lessons.COLUMNS out, one for each trace: what is told of it, and the code of the right label.

    codes: label -> code, in the order of the task.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lessons = []
            for row in batch.select(["video_id", "uri", "input_text", "targets", "traces"]).to_pylist():
                label, code = list(codes.items())[row["targets"].index(1)]
                known = {"video_id": row["video_id"], "uri": row["uri"], "text": code, "labels": [label]}
                lessons += [known | {"said": said(trace, row["input_text"])} for trace in row["traces"]]
            yield pa.RecordBatch.from_pylist(lessons, COLUMNS)

    return run

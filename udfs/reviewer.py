"""Reviews inside a Spark worker: `DataFrame.mapInArrow(review(plan), schema)`.

Input columns: video_id, uri, input_text, traces (structs with what `review.said` reads), and any others.
Output: the same rows in the order they finish, with the column `reviewed`: list<double>, probability of each label by the
order of the plan's codes, NULL for a video that could not be watched or that no reviewer wrote of.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa

from models.calibration.reviewer import mean_of
from models.engines.process import open_engine
from models.engines.promise import EngineDead
from models.engines.reviews import Review, ReviewPlan, Reviews, ReviewTask
from models.language.review import said
from models.training.lessons import COLUMNS
from udfs.device import claim_device
from udfs.stall import DEAD_ENGINE_EXIT, Watchdog, stalled

ArrowUdf = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
REVIEWED = pa.field("reviewed", pa.list_(pa.float64()))


class StoreAway(RuntimeError):
    """The store does not answer: what is asked of a video has to be asked again."""


def review(plan: ReviewPlan) -> ArrowUdf:
    """The function for mapInArrow. A dead or stalled engine ends the worker process, as in `rollout`.

    Raises StoreAway, so that the task is tried again.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        waiting: dict[int, pa.RecordBatch] = {}
        watchdog = Watchdog(plan.stall_seconds, stalled)

        def tasks() -> Iterator[ReviewTask]:
            number = 0
            for batch in batches:
                for at, row in enumerate(batch.select(["video_id", "uri", "input_text", "traces"]).to_pylist()):
                    waiting[number] = batch.slice(at, 1)
                    # Of a video of which nothing was written, nothing can be asked.
                    told = tuple(said(trace, row["input_text"]) for trace in row["traces"] if trace["text"])
                    yield ReviewTask(number, row["video_id"], row["uri"], told)
                    number += 1

        def found() -> Iterator[tuple[ReviewTask, Review]]:
            todo: list[ReviewTask] = []

            def asked() -> Iterator[ReviewTask]:
                for task in tasks():
                    if task.said:
                        yield task
                    else:
                        todo.append(task)

            first = asked()
            one = next(first, None)
            if one is not None:  # else no engine is needed
                claim_device()
                engine = open_engine(plan.engine)  # watched, too: loading can hang
                yield from Reviews(plan, engine, watchdog.touch).of(_chain(one, first))
            for task in todo:
                yield task, "nothing was written of it"

        try:
            for task, result in watchdog.watch(found()):
                if isinstance(result, str) and result.startswith("unreachable:"):
                    raise StoreAway(result)
                probs = None if isinstance(result, str) else mean_of(result).tolist()
                row = waiting.pop(task.key)
                yield row.append_column(REVIEWED, pa.array([probs], REVIEWED.type))
        except EngineDead:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(DEAD_ENGINE_EXIT)

    return run


def lessons_of(labels: Sequence[str], codes: Sequence[str]) -> ArrowUdf:
    """For mapInArrow: video_id, uri, input_text, targets (of exactly one label), traces in; rows of lessons.COLUMNS out, one
    for each trace that was written."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lessons = []
            for row in batch.select(["video_id", "uri", "input_text", "targets", "traces"]).to_pylist():
                right = row["targets"].index(1)
                known = {
                    "video_id": row["video_id"],
                    "uri": row["uri"],
                    "text": codes[right],
                    "labels": [labels[right]],
                }
                told = [said(trace, row["input_text"]) for trace in row["traces"] if trace["text"]]
                lessons += [known | {"said": each} for each in told]
            yield pa.RecordBatch.from_pylist(lessons, COLUMNS)

    return run


def _chain(first: ReviewTask, rest: Iterator[ReviewTask]) -> Iterator[ReviewTask]:
    yield first
    yield from rest

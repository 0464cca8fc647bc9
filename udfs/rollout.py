"""Rollouts inside a Spark worker: `DataFrame.mapInArrow(rollout(plan), schema)`.

Input columns: video_id string, input_digest string, input_text string, uri string, missing list<int> (the rollout indices
wanted), attempt int, ingested_on date; of reviews also traces, structs with rollout_index and what `review.said` reads.
Output columns: TRACE_COLUMNS, one row per missing index, whatever happens to the video.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from models.engines.asking import COLUMNS, Asking, Task
from models.engines.process import open_engine
from models.engines.promise import EngineDead
from models.engines.reviews import ReviewPlan, Reviews
from models.engines.rollouts import Plan, Rollouts
from models.language.review import said
from udfs.device import claim_device
from udfs.stall import Watchdog, stalled

TRACE_COLUMNS = pa.schema(
    [
        ("video_id", pa.string()),
        ("input_digest", pa.string()),
        ("rollout_index", pa.int32()),
        ("attempt", pa.int32()),
        ("seed", pa.int64()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("observation", pa.string()),
        ("think", pa.string()),
        ("answer", pa.string()),
        ("label", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("well_formed", pa.bool_()),
        ("logprob_sum", pa.float64()),
        ("label_logprobs", pa.map_(pa.string(), pa.float64())),
        ("prompt_tokens", pa.int32()),
        ("tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("engine", pa.string()),
        ("engine_version", pa.string()),
        ("ingested_on", pa.date32()),
    ]
)
_OF_THE_LAKE = ("input_digest", "ingested_on")  # of a video, and no model's business
assert {*TRACE_COLUMNS.names} == {*COLUMNS, *_OF_THE_LAKE}

# For the log only: Spark sees a lost worker and tries the task again on a fresh one.
_DEAD_ENGINE_EXIT = 70


def rollout(plan: Plan | ReviewPlan) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function for mapInArrow. The engine starts with the first row of a worker's first task and stays with it.

    A dead or stalled engine ends the whole worker process: it must not be used again, and may hold the device.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known: dict[str, dict[str, Any]] = {}
        tasks = _tasks(batches, known)
        first = next(tasks, None)
        if first is None:  # an empty partition starts no engine
            return
        claim_device()
        watchdog = Watchdog(plan.stall_seconds, stalled)

        def rows() -> Iterator[dict]:
            engine = open_engine(plan.engine, plan.on_engine_start)  # watched, too: loading can hang
            asking: Asking
            if isinstance(plan, ReviewPlan):
                asking = Reviews(plan, engine, watchdog.touch)
            else:
                asking = Rollouts(plan, engine, watchdog.touch)
            yield from asking.rows(chain([first], tasks))

        try:
            yield from _batches(watchdog.watch(rows()), known, plan.rows_per_batch)
        except EngineDead:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(_DEAD_ENGINE_EXIT)

    return run


def _tasks(batches: Iterable[pa.RecordBatch], known: dict[str, dict[str, Any]]) -> Iterator[Task]:
    """The tasks in a task's batches; notes what the lake knows of each video."""
    for batch in batches:
        for row in batch.to_pylist():
            known[row["video_id"]] = {name: row[name] for name in _OF_THE_LAKE}
            told = {trace["rollout_index"]: said(trace, row["input_text"]) for trace in row.get("traces") or ()}
            yield Task(row["video_id"], row["uri"], tuple(row["missing"]), row["attempt"], row["input_text"], told)


def _batches(rows: Iterator[dict], known: dict[str, dict[str, Any]], size: int) -> Iterator[pa.RecordBatch]:
    held: list[dict] = []
    for row in rows:
        held.append(row | known[row["video_id"]])
        if len(held) == size:
            yield pa.RecordBatch.from_pylist(held, TRACE_COLUMNS)
            held = []
    if held:
        yield pa.RecordBatch.from_pylist(held, TRACE_COLUMNS)

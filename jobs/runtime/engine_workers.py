"""The Python workers that hold engines: a pool of their own on each executor, kept from one wave to the next.

Spark gives a task whichever worker of a pool idles, and ends all idle ones of it on an executor where none has ended a task
for a minute; no setting changes that. A model that took minutes to load must not be lost because a store is slow, nor its
worker be given to a score while another one loads the model a second time, beside the first on one device.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from udfs.staying import STAYED, stay

# Spark keeps a pool for each environment that functions ask for.
_POOL = ("DEEPINTUIT_WORKERS", "engines")
_EVERY_S = 20.0
_LONGEST_S = 900.0  # without work: then whoever waits for the device may have it
_STUCK_S = 60.0
_GROUP = "engine-workers"
_ALONE = threading.RLock()  # the pool is the process's, not a run's

Batches = Iterable[pa.RecordBatch]


class EngineWorkers:
    """Where the functions of a run that open an engine are run. warn: told where engines cannot be kept."""

    def __init__(self, spark: Callable[[], SparkSession], warn: Callable[[str], None]) -> None:
        self._spark, self._warn = spark, warn
        self._over, self._ended = threading.Event(), 0.0
        self._thread: threading.Thread | None = None

    @contextmanager
    def mapped(
        self, rows: DataFrame, function: Callable[[Batches], Iterator[pa.RecordBatch]], schema: pa.Schema
    ) -> Iterator[DataFrame]:
        """`rows.mapInArrow` in the workers of this pool, around the stage that runs it; they are kept from its end on."""
        if not _ALONE.acquire(timeout=_STUCK_S):  # a worker that stands still, and is ended by this
            self._spark().sparkContext.cancelJobGroup(_GROUP)
            _ALONE.acquire()
        try:
            self._keep()
            yield self._map(rows, function, schema)
        finally:
            self._ended = time.monotonic()
            _ALONE.release()

    def close(self) -> None:
        """Nobody needs them any more."""
        self._over.set()

    def _map(
        self, rows: DataFrame, function: Callable[[Batches], Iterator[pa.RecordBatch]], schema: pa.Schema
    ) -> DataFrame:
        name, value = _POOL
        environment = self._spark().sparkContext.environment
        environment[name] = value
        try:
            return rows.mapInArrow(function, from_arrow_schema(schema))
        finally:
            del environment[name]

    def _keep(self) -> None:
        """Begin to keep them, if nobody does: a task on each executor that there is, which keeps all that idle there."""
        if self._thread is not None and self._thread.is_alive():
            return
        spark = self._spark()
        executors = max(1, spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1)
        # Made here: while the environment is another one, nobody else may make a function.
        asked = self._map(spark.range(0, executors, 1, executors), stay, STAYED)
        self._thread = threading.Thread(target=self._stay, args=(asked,), daemon=True, name=_GROUP)
        self._thread.start()

    def _stay(self, asked: DataFrame) -> None:
        asked.sparkSession.sparkContext.setJobGroup(_GROUP, "keeps engines from being idle", interruptOnCancel=True)
        while not self._over.wait(_EVERY_S):
            if not _ALONE.acquire(blocking=False):
                continue  # they are at work: one that stays would take a worker from it
            try:
                if time.monotonic() - self._ended > _LONGEST_S:
                    return
                asked.collect()
            except (PySparkException, Py4JJavaError) as error:
                # Each try that fails costs a worker, and may cost its engine.
                said = next(iter(str(error).splitlines()), "")[:200]
                self._warn(f"engines are not kept from here to the next wave, which may load its model anew: {said}")
                return
            except Exception:  # Spark has ended: whoever works with it is told so
                return
            finally:
                _ALONE.release()

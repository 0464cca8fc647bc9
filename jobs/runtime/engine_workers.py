"""The Python workers that hold engines: a pool of their own, which lives for as long as the run.

Spark gives a task whichever Python worker idles, and ends all of a pool that were idle for a minute; no setting changes
that. A model that took minutes to load must not be lost because a store is slow, nor its worker be given to a score while
another one loads the model a second time, beside the first on one device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from udfs.staying import STAYED, stay

_EVERY_S = 20.0
# Spark keeps a pool for each environment that functions ask for.
_POOL = ("DEEPINTUIT_WORKERS", "engines")

Batches = Iterable[pa.RecordBatch]


class EngineWorkers:
    """Where the functions of a run that open an engine are run; `count`: engines that run side by side."""

    def __init__(self, spark: Callable[[], SparkSession], count: int) -> None:
        self._spark, self._count = spark, count
        self._over, self._alone = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def map(
        self, rows: DataFrame, function: Callable[[Batches], Iterator[pa.RecordBatch]], schema: pa.Schema
    ) -> DataFrame:
        """`rows.mapInArrow` in the workers of this pool."""
        name, value = _POOL
        environment = self._spark().sparkContext.environment
        environment[name] = value
        try:
            return rows.mapInArrow(function, from_arrow_schema(schema))
        finally:
            del environment[name]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Around the stage that runs what `map` made; from its end on its workers are kept until the run closes this."""
        with self._alone:  # who stays would take a worker from it
            yield
        if self._thread is None:
            ids = self._spark().range(0, self._count, 1, self._count)
            asked = self.map(ids, stay, STAYED)
            self._thread = threading.Thread(target=self._keep, args=(asked,), daemon=True, name="engine-workers")
            self._thread.start()

    def _keep(self, asked: DataFrame) -> None:
        while not self._over.wait(_EVERY_S):
            if not self._alone.acquire(blocking=False):
                continue  # they are at work
            try:
                with suppress(Exception):  # a worker or Spark itself is lost: whoever works with it is told so
                    asked.collect()
            finally:
                self._alone.release()

    def close(self) -> None:
        """Nobody needs them any more."""
        self._over.set()

"""The next batch is made while the model works on this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Ahead(Generic[Batch]):
    """`batches`, one step ahead in a thread of its own; only for batches that do not depend on what the model has learned.

    batches: a pure function of the step. Steps below `end` are made ahead. What `batches` raises is raised when its step
    is due.
    """

    def __init__(self, batches: Callable[[int], Batch], end: int) -> None:
        self._batches, self._end = batches, end
        self._made: dict[int, Future[Batch]] = {}
        self._pool = ThreadPoolExecutor(1, "ahead")

    def __call__(self, step: int) -> Batch:
        due = self._made.pop(step, None) or self._pool.submit(self._batches, step)
        if step + 1 < self._end:
            self._made = {step + 1: self._pool.submit(self._batches, step + 1)}
        return due.result()

    def __enter__(self) -> Ahead[Batch]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

"""A stalled engine is a dead engine: without a bound on its silence a worker would hold its device for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

Row = TypeVar("Row")


def watched(rows: Iterator[Row], seconds: float, on_stall: Callable[[], None]) -> Iterator[Row]:
    """The same rows; calls on_stall, from a thread of its own, once the next one takes longer than `seconds`.

    Time that the consumer takes over a row does not count.
    """
    asked_at: float | None = None
    over = threading.Event()

    def look() -> None:
        while not over.wait(seconds / 10):
            since = asked_at
            if since is not None and time.monotonic() - since > seconds:
                on_stall()
                return

    threading.Thread(target=look, daemon=True, name="stall").start()
    try:
        while True:
            asked_at = time.monotonic()
            try:
                row = next(rows)
            except StopIteration:
                return
            finally:
                asked_at = None
            yield row
    finally:
        over.set()

"""A stalled engine is a dead engine: without a bound on its silence a worker would hold its device for ever."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

Row = TypeVar("Row")
_EXIT = 71  # for the log only: a lost worker is tried again


class Watchdog:
    """Calls on_stall, from a thread of its own, once nothing was heard for `seconds` while somebody waits for a row."""

    def __init__(self, seconds: float, on_stall: Callable[[], None]) -> None:
        self._seconds, self._on_stall = seconds, on_stall
        self._heard_at, self._waiting = 0.0, False  # two fields: a late touch must not begin a wait
        self._over = threading.Event()

    def touch(self) -> None:
        """A sign of life that is no row; from any thread."""
        self._heard_at = time.monotonic()

    def watch(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The same rows, watched; time that the consumer takes over a row does not count."""
        threading.Thread(target=self._look, daemon=True, name="stall").start()
        try:
            while True:
                self.touch()
                self._waiting = True
                try:
                    row = next(rows)
                except StopIteration:
                    return
                finally:
                    self._waiting = False
                yield row
        finally:
            self._over.set()

    def _look(self) -> None:
        while not self._over.wait(self._seconds / 10):
            if self._waiting and time.monotonic() - self._heard_at > self._seconds:
                self._on_stall()
                return


def stalled() -> None:
    """End the process, whose engine may hold the device, and say where it stands."""
    print("the engine gave nothing for too long; this is where it stands:", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(2)
    os._exit(_EXIT)

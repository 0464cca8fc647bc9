"""A JVM that stands still is ended: its driver would wait for it for ever, with a lease that says that all is well."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

EVERY_S = 10.0
SILENCE_S = 600.0  # longer than any collection of garbage takes


def watch(jvm: Any, end: Callable[[], None]) -> None:
    """Ask the JVM for its time now and then, from now on; call `end` once it has been silent for SILENCE_S.

    Silence is counted in looks, not by the clock: in a process that was stopped itself no time has passed.
    """
    heard = threading.Event()

    def ask() -> None:
        while True:
            try:
                jvm.System.nanoTime()
            except Exception:  # it has ended: whoever works with it is told so
                return
            heard.set()
            time.sleep(EVERY_S)

    def look() -> None:
        silent = 0.0
        while asking.is_alive():
            time.sleep(EVERY_S)
            silent = 0.0 if heard.is_set() else silent + EVERY_S
            heard.clear()
            if silent >= SILENCE_S:
                print(f"[spark] WARNING: the JVM has not answered for {silent:.0f} s: it is ended", file=sys.stderr)
                end()
                return

    asking = threading.Thread(target=ask, daemon=True, name="pulse")
    asking.start()
    threading.Thread(target=look, daemon=True, name="pulse-looks").start()

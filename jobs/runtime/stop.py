"""Ctrl-C, from the first import to the last query: one KeyboardInterrupt in the main thread, and silence from below it."""

from __future__ import annotations

import logging
import signal
import threading


def on_ctrl_c() -> None:
    """From now on. PySpark's context puts a handler of its own in this place, so this is called again after one was made."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(*_: object) -> None:
    logging.disable(logging.CRITICAL)  # py4j would log the traceback of the call that was under way
    raise KeyboardInterrupt

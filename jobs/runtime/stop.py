"""Ctrl-C, from the first import to the last query: one KeyboardInterrupt in the main thread, and silence from below it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_pressed = threading.Event()


def on_ctrl_c() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt in the main thread, and what is below it is silent."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupted)


@contextmanager
def heard() -> Iterator[None]:
    """Around what may lose a Ctrl-C: Python swallows what is raised in the callbacks of a fork, and PySpark's context puts a
    handler of its own into this place. Raises KeyboardInterrupt at the end if one was pressed meanwhile."""
    _pressed.clear()
    yield
    on_ctrl_c()
    if _pressed.is_set():
        raise KeyboardInterrupt


def _interrupted(*_: object) -> None:
    _pressed.set()
    logging.disable(logging.CRITICAL)  # py4j would log the traceback of the call that was under way
    raise KeyboardInterrupt

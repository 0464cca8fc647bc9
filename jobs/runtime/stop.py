"""Ctrl-C, from the first import to the last query: one KeyboardInterrupt in the main thread, and silence from below it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_pressed = threading.Event()
_waiting = threading.Event()  # whether a Ctrl-C is only noted for now


def on_ctrl_c() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt in the main thread, and what is below it is silent."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupted)


@contextmanager
def heard() -> Iterator[None]:
    """Around what may lose a Ctrl-C: Python swallows, aloud, what is raised in the callbacks of a fork, and PySpark's
    context puts a handler of its own into this place. Raises KeyboardInterrupt at the end if one was pressed meanwhile,
    whatever failed for it: a JVM that comes up is pressed, too."""
    _pressed.clear()
    _waiting.set()
    try:
        yield
    except Exception:
        if not _pressed.is_set():
            raise
    finally:
        _waiting.clear()
        on_ctrl_c()
    if _pressed.is_set():
        raise KeyboardInterrupt


def _interrupted(*_: object) -> None:
    _pressed.set()
    logging.disable(logging.CRITICAL)  # py4j would log the traceback of the call that was under way
    if not _waiting.is_set():
        raise KeyboardInterrupt

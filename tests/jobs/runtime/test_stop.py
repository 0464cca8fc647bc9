"""Ctrl-C where Python would swallow it."""

import logging
import signal

import pytest

from jobs.runtime.stop import heard, on_ctrl_c


@pytest.fixture
def hearing():
    before = signal.getsignal(signal.SIGINT)
    on_ctrl_c()
    yield
    signal.signal(signal.SIGINT, before)
    logging.disable(logging.NOTSET)


class Deaf:
    """What is raised while it is forgotten goes nowhere, as in the callbacks of a fork."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings(
    "error::pytest.PytestUnraisableExceptionWarning"
)  # Python would say aloud that it swallowed one
def test_a_ctrl_c_that_python_swallowed_is_heard_at_the_end(hearing):
    reached = False
    with pytest.raises(KeyboardInterrupt), heard():
        Deaf()
        reached = True
    assert reached


def test_afterwards_the_handler_is_ours_whoever_had_put_in_another(hearing):
    ours = signal.getsignal(signal.SIGINT)
    with heard():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is ours


def test_what_failed_for_a_ctrl_c_is_that_ctrl_c_and_what_failed_by_itself_is_not(hearing):
    """A JVM that comes up is pressed together with us, and then does not come up."""
    with pytest.raises(KeyboardInterrupt), heard():
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("the JVM is gone")
    with pytest.raises(RuntimeError, match="by itself"), heard():
        raise RuntimeError("by itself")

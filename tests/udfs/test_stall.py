"""A bound on the silence of an engine."""

import subprocess
import sys
import time

from udfs.stall import watched


def slow(pauses):
    for number, pause in enumerate(pauses):
        time.sleep(pause)
        yield number


def test_rows_pass_and_a_slow_consumer_is_no_stall():
    stalls = []
    seen = []
    for row in watched(slow([0, 0, 0]), 0.1, lambda: stalls.append(1)):
        time.sleep(0.3)
        seen.append(row)
    assert seen == [0, 1, 2] and stalls == []


def test_a_row_that_takes_too_long_is_a_stall_said_once():
    stalls = []
    assert list(watched(slow([0, 0.5, 0]), 0.1, lambda: stalls.append(1))) == [0, 1, 2]
    assert stalls == [1]


def test_a_stalled_engine_ends_its_worker():
    code = """
import time
from udfs.rollout import _stalled
from udfs.stall import watched
def rows():
    yield 1
    time.sleep(60)
for row in watched(rows(), 0.2, _stalled):
    print("row", row, flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 71 and ended.stdout == "row 1\n"
    assert "no row" in ended.stderr and "time.sleep" not in ended.stdout and "in rows" in ended.stderr

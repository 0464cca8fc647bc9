"""Progress: what tasks write is added up, and what people read is right about rates, time left and what is waited for."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import sys
import time
from contextlib import suppress

import pytest

from jobs.runtime import progress
from jobs.runtime.progress import Watch, clock, describe
from jobs.runtime.record import Record
from lake import storage
from udfs.progress import TaskProgress, engines, total


def task(folder, name: str, videos: int, tokens: int) -> None:
    storage.write(f"{folder}/{name}.json", json.dumps({"videos": videos, "tokens": tokens}).encode())


def watch(folder, before: int = 0, all_videos: int = 100, quiet: bool = False) -> Watch:
    return Watch(Record("rollout", "t", str(folder), quiet), str(folder), before, all_videos, "starting engines")


def wait_for(happened, what: str) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (9.4, "0:09"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.7, "1:00:00"),
        (3661, "1:01:01"),
        (90000, "25:00:00"),
    ],
)
def test_a_clock_reads_minutes_or_hours(seconds, text):
    assert clock(seconds) == text


def test_rates_and_time_left_by_hand():
    assert describe(videos=20, tokens=6000, videos_left=40, seconds=10) == "2.0 videos/s  600 tokens/s  0:20 left"
    assert describe(videos=5, tokens=0, videos_left=0, seconds=10) == "0.5 videos/s  0:00 left"


def test_tasks_are_added_up_and_engines_counted_apart(tmp_path):
    assert total(str(tmp_path)) == {"videos": 0, "tokens": 0} and engines(str(tmp_path)) == 0
    task(tmp_path, "task-0", 3, 100)
    task(tmp_path, "task-1", 4, 50)
    TaskProgress(str(tmp_path)).engine_started()
    assert total(str(tmp_path)) == {"videos": 7, "tokens": 150} and engines(str(tmp_path)) == 1


def test_a_task_tried_again_overwrites_what_it_said(tmp_path):
    for videos in (5, 2):
        TaskProgress(str(tmp_path))(videos, videos * 10)
    assert total(str(tmp_path)) == {"videos": 2, "tokens": 20}


def test_a_task_writes_at_most_once_a_second(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    said = TaskProgress(str(tmp_path))
    for moment, videos in ((100.0, 1), (100.5, 2), (100.9, 3)):
        now[0] = moment
        said(videos, 0)
    assert total(str(tmp_path))["videos"] == 1
    now[0] = 101.0
    said(4, 0)
    assert total(str(tmp_path))["videos"] == 4
    said(5, 0)
    said.ended()
    assert total(str(tmp_path))["videos"] == 5


def test_before_the_first_video_the_line_says_that_engines_start_and_for_how_long(tmp_path):
    """And promises no time: their start says nothing of the rate."""
    seen = watch(tmp_path, before=5)
    assert seen._look() == (5, "starting engines, 0:00")
    seen._entered -= 75
    seen._began -= 75
    assert seen._look() == (5, "starting engines, 1:15")


def test_once_engines_have_started_it_says_so(tmp_path):
    TaskProgress(str(tmp_path)).engine_started()
    assert watch(tmp_path)._look() == (0, "engines have started, no video is done yet, 0:00")


def test_a_pause_is_told_and_promises_no_time(tmp_path):
    """One engine is done, the other one still starts."""
    seen = watch(tmp_path)
    seen._began -= 10
    task(tmp_path, "task-0", 50, 0)
    assert seen._look() == (50, "5.0 videos/s  0:10 left")
    seen._moved -= 20
    seen._began -= 20
    assert seen._look() == (50, "5.0 videos/s  0:10 left")
    seen._moved -= 15
    assert seen._look() == (50, "none done for 0:35")
    task(tmp_path, "task-1", 5, 0)
    assert " left" in seen._look()[1]


def test_the_start_of_the_engines_does_not_slow_the_rate(tmp_path):
    seen = watch(tmp_path)
    seen._began -= 1000
    seen._look()
    task(tmp_path, "task-0", 50, 0)
    seen._began -= 10
    assert seen._look() == (50, "5.0 videos/s  0:10 left")


def test_the_time_left_is_that_of_the_whole_run(tmp_path):
    """Of 300 videos, 100 are done from earlier waves and 50 of this one, in 10 s."""
    seen = watch(tmp_path, before=100, all_videos=300)
    task(tmp_path, "task-0", 50, 1000)
    seen._began -= 10
    assert seen._look() == (150, "5.0 videos/s  100 tokens/s  0:30 left")


def test_where_there_is_no_terminal_a_line_comes_every_ten_seconds(tmp_path, monkeypatch):
    assert progress._LINE_S == 10.0
    monkeypatch.setattr(progress, "_LINE_S", 0.02)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with watch(tmp_path, before=500, all_videos=3000):
        wait_for(lambda: sys.stderr.getvalue().count("\n") >= 2, "nothing was printed")
        task(tmp_path, "task-0", 1000, 0)
        wait_for(lambda: "left" in sys.stderr.getvalue(), "no rate was printed")
    lines = sys.stderr.getvalue().splitlines()
    assert lines[0] == lines[1] == "[rollout] 500/3,000 videos  starting engines, 0:00"
    assert re.fullmatch(r"\[rollout\] 1,500/3,000 videos  [\d.]+ videos/s  0:0\d left", lines[-1])


def test_while_no_video_is_done_every_third_line_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    done, seen = [0, 0, 0, 0, 0, 0, 0, 5, 6, 6], watch(tmp_path)
    ended = iter([False] * len(done) + [True])
    monkeypatch.setattr(seen._stop, "wait", lambda _: next(ended))
    monkeypatch.setattr(seen, "_look", lambda: (done.pop(0), "so far"))
    seen._lines()
    assert [line.split()[1].partition("/")[0] for line in sys.stderr.getvalue().splitlines()] == [
        "0",
        "0",
        "0",
        "5",
        "6",
    ]


def test_a_stage_that_ends_before_the_first_line_prints_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with watch(tmp_path):
        pass
    assert sys.stderr.getvalue() == ""


def test_on_a_terminal_one_bar_redraws_and_is_gone_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_LOOK_S", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    master, terminal = pty.openpty()
    os.set_blocking(master, False)
    drawn = b""

    def shows(text: str) -> bool:
        nonlocal drawn
        with suppress(BlockingIOError):
            drawn += os.read(master, 1 << 16)
        return text in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode(errors="replace"))

    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with watch(tmp_path, all_videos=40):
            wait_for(lambda: shows("starting engines, 0:00"), "no bar was drawn")
            task(tmp_path, "task-0", 10, 0)
            wait_for(lambda: shows("10/40") and shows(" left"), "the bar stood still")
        assert shows("40")
    # Drawn over itself again and again, never on a new line but once at its end; and that line is erased.
    assert drawn.count(b"\n") <= 1 and drawn.count(b"\r") >= 2
    assert drawn.endswith(b"\x1b[2K")
    os.close(master)


def test_a_quiet_watch_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_S", 0.01)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with watch(tmp_path, quiet=True):
        time.sleep(0.05)
    assert sys.stderr.getvalue() == ""

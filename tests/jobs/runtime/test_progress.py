"""Progress: what tasks write is added up, and what people read is right about rates and time left."""

from __future__ import annotations

import io
import json
import sys
import time

import pytest
from jobs.progress import Watch, clock, describe

from jobs import progress
from lake import storage
from udfs.progress import TaskProgress, engines, total


def task(folder, name: str, videos: int, tokens: int) -> None:
    storage.write(f"{folder}/{name}.json", json.dumps({"videos": videos, "tokens": tokens}).encode())


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


def test_before_the_first_video_no_time_is_promised():
    assert describe(videos=0, tokens=0, videos_left=9, seconds=10) == "0.0 videos/s  starting"
    assert describe(videos=0, tokens=0, videos_left=9, seconds=0) == "0.0 videos/s  starting"


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


def test_a_watch_prints_lines_where_there_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_S", 0.02)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    task(tmp_path, "task-0", 1000, 0)
    with Watch("rollout", str(tmp_path), before=500, all_videos=3000):
        deadline = time.monotonic() + 10
        while not sys.stderr.getvalue():
            assert time.monotonic() < deadline, "nothing was printed"
            time.sleep(0.01)
    assert sys.stderr.getvalue().splitlines()[0].startswith("[rollout] 1,500/3,000 videos  ")
    assert sys.stderr.getvalue().splitlines()[0].endswith(" left")


def test_the_start_of_the_engines_does_not_slow_the_rate(tmp_path):
    watch = Watch("rollout", str(tmp_path), before=0, all_videos=100)
    watch._began -= 1000
    assert watch._look()[1] == "0.0 videos/s  starting"
    task(tmp_path, "task-0", 50, 0)
    watch._began -= 10
    assert watch._look() == (50, "5.0 videos/s  0:10 left")


def test_a_quiet_watch_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_S", 0.01)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Watch("rollout", str(tmp_path), 0, 10, quiet=True):
        time.sleep(0.05)
    assert sys.stderr.getvalue() == ""

"""Given a lake whose rollout job is killed at every point of a wave, then ids are complete and unique.

One lake, one life after another: each run first mends what the last one left, commits a wave, and dies in its second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import PROJECT, Lake

pytestmark = pytest.mark.timeout(1500)
POINTS = ("mid_decode", "unsealed", "sealed", "audited", "published", "recorded")
# In these lives the second wave was sealed before the kill: it must be published as it was, without the model.
SEALED = ("sealed", "audited", "published", "recorded")


def live(root: Path, point: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(PROJECT / "tests/jobs/doomed.py"), str(root), point],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def published_files(lake: Lake) -> dict[str, int]:
    """Parquet file -> modification time, of the table traces."""
    folder = lake.root / "tables" / "traces"
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.parquet") if "_delta_log" not in path.parts}


def keys(lake: Lake) -> Counter:
    return Counter((row["video_id"], row["rollout_index"]) for row in lake.rows("traces"))


def said(row: dict) -> tuple:
    """What was written, and when: a second rollout would bear another time."""
    return row["text"], row["created_at"].replace(tzinfo=None)


def staged_rows(lake: Lake) -> dict[tuple[str, int], str]:
    """What sealed waves hold: (video, rollout) -> text and time of creation."""
    found = {}
    for manifest in lake.root.glob("staging/*/*/manifest.json"):
        for row in pq.read_table(manifest.parent / "data" / "traces").to_pylist():
            found[row["video_id"], row["rollout_index"]] = said(row)
    return found


@pytest.fixture(scope="module")
def killed(spark, clip_factory, tmp_path_factory):
    """The lake after all lives, with what was seen between them."""
    lake = Lake(tmp_path_factory.mktemp("killed") / "lake")
    lake.job("ingest", source=str(clip_factory("calibrate", 24)))
    lake.seen = {}
    for point in POINTS:
        ended = live(lake.root, point)
        assert ended.returncode == -signal.SIGKILL, (point, ended.returncode, ended.stderr[-3000:])
        lake.seen[point] = {"files": published_files(lake), "staged": staged_rows(lake), "keys": keys(lake)}
    lake.last = live(lake.root, "never")
    assert lake.last.returncode == 0, lake.last.stderr[-3000:]
    return lake


def test_ids_are_complete_and_unique(killed):
    videos = {row["video_id"] for row in killed.rows("videos")}
    assert len(videos) == 24
    assert keys(killed) == Counter((video, index) for video in videos for index in range(4))


def test_every_life_committed_a_wave_before_it_died(killed):
    sizes = [sum(killed.seen[point]["keys"].values()) for point in POINTS]
    assert all(later > earlier for earlier, later in zip([0, *sizes], sizes, strict=False)), sizes


def test_files_of_committed_waves_are_untouched(killed):
    now = published_files(killed)
    for point in POINTS:
        for path, modified in killed.seen[point]["files"].items():
            assert now[path] == modified, (point, path)


@pytest.mark.parametrize("point", SEALED)
def test_a_sealed_wave_is_published_without_running_the_model(killed, point):
    staged = killed.seen[point]["staged"]
    assert len(staged) >= 4
    published = {(row["video_id"], row["rollout_index"]): said(row) for row in killed.rows("traces")}
    assert {key: published[key] for key in staged} == staged


def test_a_wave_that_was_not_sealed_is_done_again(killed):
    for point in ("mid_decode", "unsealed"):
        assert not killed.seen[point]["staged"]


def test_side_rows_are_there_once(killed):
    waves = Counter((row["wave_id"], row["table"], row["check"]) for row in killed.rows("quality"))
    assert set(waves.values()) == {1}
    published = {row["wave_id"] for row in killed.rows("traces")}
    assert published <= {wave for wave, _, _ in waves}
    events = Counter((row["run_id"], row["event"]) for row in killed.rows("runs"))
    assert set(events.values()) == {1}


def test_nothing_is_left_behind(killed):
    assert list((killed.root / "staging").iterdir()) == []

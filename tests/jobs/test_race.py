"""Given two nightly drivers at once, new videos arriving between their starts, then nothing is lost and nothing is twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from support import PROJECT, Lake

pytestmark = [pytest.mark.xdist_group("night"), pytest.mark.timeout(600)]


def start(lake: Lake, source) -> subprocess.Popen:
    command = [sys.executable, str(PROJECT / "tests/jobs/rival.py"), str(lake.root), str(source)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


@pytest.fixture(scope="module")
def raced(night, clip_factory, tmp_path_factory):
    """The night's lake after two rivals; `counts` holds what each of them counted."""
    lake = Lake(tmp_path_factory.mktemp("race") / "lake")
    shutil.copytree(night.root, lake.root)
    arriving = sorted(clip_factory("refine", 8).glob("*.mp4"))
    source = lake.root.parent / "arriving"
    source.mkdir()
    for clip in arriving[:5]:
        shutil.copy2(clip, source)
    first = start(lake, source)
    assert first.stdout.readline().strip() == "READY"
    for clip in arriving[5:]:
        shutil.copy2(clip, source)
    second = start(lake, source)
    outputs = [rival.communicate(timeout=400)[0] for rival in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    lake.counts = [json.loads(output.strip().splitlines()[-1]) for output in outputs]
    lake.arrived = {path.name for path in arriving}
    return lake


def test_the_rivals_met(raced):
    assert sum(counts.get("collisions", 0) for counts in raced.counts) > 0


def test_no_video_is_lost_or_doubled(raced):
    videos = raced.rows("videos")
    assert Counter(row["video_id"] for row in videos).most_common(1)[0][1] == 1
    assert raced.arrived <= {row["uri"].rpartition("/")[2] for row in videos}
    files = Counter((row["uri"], row["etag"]) for row in raced.rows("files"))
    assert set(files.values()) == {1}


def test_every_rollout_is_there_once(raced, night):
    recipe_id = night.runs["rollout"].versions["recipe_id"]
    new = {row["video_id"] for row in raced.rows("videos")} - {row["video_id"] for row in night.rows("videos")}
    assert len(new) == 8
    found = Counter(
        (row["video_id"], row["rollout_index"])
        for row in raced.rows("traces")
        if row["video_id"] in new and row["recipe_id"] == recipe_id
    )
    assert found == Counter((video, index) for video in new for index in range(4))


def test_every_video_has_one_live_score_and_decision(raced, night):
    live = night.runs["promote"].versions
    videos = {row["video_id"] for row in raced.rows("videos")}
    scores = Counter(row["video_id"] for row in raced.rows("scores") if row["scorer_id"] == live["scorer_id"])
    assert scores == Counter(videos)
    decisions = Counter(
        row["video_id"]
        for row in raced.rows("decisions")
        if (row["scorer_id"], row["rule_id"]) == (live["scorer_id"], live["rule_id"])
    )
    assert decisions == Counter(videos)


def test_each_rival_accounts_for_its_files(raced):
    for counts in raced.counts:
        parts = ("unchanged", "duplicates", "videos_new", "quarantined", "deferred")
        assert counts["files_listed"] == sum(counts[name] for name in parts)

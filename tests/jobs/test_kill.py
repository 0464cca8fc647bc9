"""Given a lake whose rollout job is killed at every point of a wave, then ids are complete and unique.

One lake, one life after another: each run first mends what the last one left, commits a wave, and dies in its second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import PROJECT, Lake

from benchmarks import null_engine
from lake.log import all_files
from lake.table import open_table
from schemas.traces import TRACES

pytestmark = pytest.mark.timeout(2400)
# Where a life ends: in its second wave, before it is sealed ...
UNSEALED = ("mid_decode", "between_files", "unsealed", "removing")
# ... or after: then that wave must be published as it was, without the model.
SEALED = ("sealed", "audited", "published", "recorded")
POINTS = (*UNSEALED[:3], *SEALED, UNSEALED[3])
# A life costs a minute. What dies between the steps of settling a wave, tests/lake/test_waves.py sees in one process;
# `make soak` kills at every point.
FEW = ("between_files", "published")


def pytest_generate_tests(metafunc):
    """Which points there are is known before the lake is."""
    if "sealed_point" in metafunc.fixturenames:
        metafunc.parametrize("sealed_point", [point for point in points(metafunc.config) if point in SEALED])


def points(config) -> tuple[str, ...]:
    return POINTS if config.getoption("--soak") else FEW


def start(root: Path, point: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(PROJECT / "tests/jobs/doomed.py"), str(root), point],
        cwd=PROJECT,
        # Other tests on this host must not clean up after it.
        env={**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": str(scratch(root))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def scratch(root: Path) -> Path:
    folder = root.parent / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


def stands_still(process: subprocess.Popen) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def data_files(lake: Lake) -> dict[str, int]:
    """Parquet file -> modification time, of all that is in the folder of the table traces, published or not."""
    folder = lake.root / "tables" / "traces"
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.glob("recipe_id=*/*/*.parquet")
        if not path.name.startswith(".")
    }


def published_files(lake: Lake) -> dict[str, int]:
    """The same of those that the table names."""
    named = {name for name, _ in all_files(open_table(TRACES, str(lake.root)))}
    return {name: modified for name, modified in data_files(lake).items() if name in named}


def keys(lake: Lake) -> Counter:
    return Counter((row["video_id"], row["rollout_index"]) for row in lake.rows("traces"))


def said(row: dict) -> tuple:
    """What was written, and when: a second rollout would bear another time."""
    return row["text"], row["created_at"].replace(tzinfo=None)


def staged_rows(lake: Lake) -> dict[tuple[str, int], tuple]:
    """What sealed waves hold: (video, rollout) -> text and time of creation."""
    found = {}
    for manifest in lake.root.glob("staging/*/*/manifest.json"):
        for output in json.loads(manifest.read_text())["outputs"]:
            for file in output["files"]:
                for row in pq.ParquetFile(lake.root / "tables" / "traces" / file["name"]).read().to_pylist():
                    found[row["video_id"], row["rollout_index"]] = said(row)
    return found


@pytest.fixture(scope="module")
def killed(spark, clip_factory, tmp_path_factory, request):
    """The lake after all lives, with what was seen between them."""
    lake = Lake(tmp_path_factory.mktemp("killed") / "lake", f"engine.kind={null_engine.KIND}")
    lake.job("ingest", source=str(clip_factory("calibrate", 36)))
    lake.seen = {}
    for point in points(request.config):
        life = start(lake.root, point)
        _, said = life.communicate(timeout=300)
        assert life.returncode == -signal.SIGKILL, (point, life.returncode, said[-3000:])
        lake.seen[point] = {
            "files": published_files(lake),
            "staged": staged_rows(lake),
            "keys": keys(lake),
            "unsealed": data_files(lake).keys() - published_files(lake).keys(),
        }
    sleeper = start(lake.root, "stopped")
    while not stands_still(sleeper):
        assert sleeper.poll() is None, sleeper.communicate()
        time.sleep(0.1)
    lake.slept = sum(keys(lake).values())
    time.sleep(1.5)
    lake.last = lake.job("rollout", "waves.lease_seconds=1")
    os.kill(sleeper.pid, signal.SIGCONT)
    lake.woken = sleeper.communicate(timeout=120)[1], sleeper.returncode
    return lake


def test_ids_are_complete_and_unique(killed):
    videos = {row["video_id"] for row in killed.rows("videos")}
    assert len(videos) == 36
    assert keys(killed) == Counter((video, index) for video in videos for index in range(4))


def test_every_life_committed_a_wave_before_it_died(killed):
    sizes = [sum(seen["keys"].values()) for seen in killed.seen.values()]
    assert all(later > earlier for earlier, later in zip([0, *sizes], sizes, strict=False)), sizes


def test_files_of_committed_waves_are_untouched(killed):
    now = published_files(killed)
    for point, seen in killed.seen.items():
        for path, modified in seen["files"].items():
            assert now[path] == modified, (point, path)


def test_a_sealed_wave_is_published_without_running_the_model(killed, sealed_point):
    staged = killed.seen[sealed_point]["staged"]
    assert len(staged) >= 4
    published = {(row["video_id"], row["rollout_index"]): said(row) for row in killed.rows("traces")}
    assert {key: published[key] for key in staged} == staged


def test_a_wave_that_was_not_sealed_is_done_again(killed):
    assert not any(killed.seen[point]["staged"] for point in UNSEALED if point in killed.seen)
    assert killed.seen["between_files"]["unsealed"]  # files of it were there, and no reader saw them


def test_a_run_that_stood_still_past_its_lease_ends_by_itself_and_harms_nothing(killed):
    """Another run went on with its work while it slept; what it had staged it must not publish."""
    said, code = killed.woken
    assert code == 1 and said.count("\n") == 1, said
    assert said.startswith("deepintuit: run rollout-") and "stood still for longer than its lease" in said
    assert killed.last.counts["rollouts"] == 36 * 4 - killed.slept
    (failed,) = [row for row in killed.rows("runs") if row["event"] == "failed"]
    assert "stood still" in failed["message"] and failed["run_id"] in said


def test_side_rows_are_there_once(killed):
    waves = Counter((row["wave_id"], row["table"], row["check"]) for row in killed.rows("quality"))
    assert set(waves.values()) == {1}
    published = {row["wave_id"] for row in killed.rows("traces")}
    assert published <= {wave for wave, _, _ in waves}
    events = Counter((row["run_id"], row["event"]) for row in killed.rows("runs"))
    assert set(events.values()) == {1}


def test_nothing_is_left_in_staging(killed):
    assert list((killed.root / "staging").iterdir()) == []


def test_maintain_removes_what_the_kills_left_and_nothing_else(killed, monkeypatch):
    """After the lake has been looked at: what is in its folders and no commit names, and Spark's scratch space."""
    named, rows = published_files(killed), sorted(keys(killed).items())
    lost = data_files(killed).keys() - named.keys()
    assert lost >= killed.seen["between_files"]["unsealed"]
    monkeypatch.setattr(tempfile, "tempdir", str(scratch(killed.root)))
    done = killed.job("maintain")
    assert done.counts["orphans"] >= len(lost) and done.counts["scratch_bytes_freed"] > 0
    assert data_files(killed).keys() >= named.keys() and not data_files(killed).keys() & lost
    assert len(published_files(killed)) < len(named) and sorted(keys(killed).items()) == rows

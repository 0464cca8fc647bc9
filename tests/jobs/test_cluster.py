"""Given executors in processes of their own, when one of them is lost in mid-wave, then the job ends with every row once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from slow_engine import KIND
from support import PROJECT, Lake, last_json

from conf.sections import CONF
from udfs import progress

pytestmark = pytest.mark.timeout(600)
VIDEOS = 16
# An executor that stands still is lost once it has been silent for so long.
CLUSTER = """
spark.master                       local-cluster[2,1,1024]
spark.executor.memory              1g
spark.network.timeout              12s
spark.network.timeoutInterval      2s
spark.executor.heartbeatInterval   2s
"""


@pytest.fixture(scope="module")
def lake(spark, clip_factory, tmp_path_factory):
    made = Lake(tmp_path_factory.mktemp("cluster") / "lake", f"engine.kind={KIND}")
    made.job("ingest", source=str(clip_factory("calibrate", VIDEOS)))
    local = [line for line in (CONF / "spark/local.conf").read_text().splitlines() if "spark.master" not in line]
    made.properties = made.root.parent / "cluster.conf"
    made.properties.write_text("\n".join(local) + CLUSTER)
    return made


@pytest.fixture
def start(lake):
    """start(rollouts) -> the running job; nothing of it outlives the test."""
    running: list[subprocess.Popen] = []

    def begin(rollouts: int) -> subprocess.Popen:
        running.append(started(lake, rollouts))
        return running[-1]

    yield begin
    for run in running:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


def started(lake: Lake, rollouts: int) -> subprocess.Popen:
    settings = [
        f"lake.root={lake.root}",
        *lake.overrides,
        f"spark.properties={lake.properties}",
        f"rollout.n={rollouts}",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    paths = os.pathsep.join(str(PROJECT / place) for place in (".", "tests/jobs"))
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.runtime.cli", "rollout", "--conf", "conf/local.yaml", *words],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def executors(run: subprocess.Popen) -> list[psutil.Process]:
    return [process for process in psutil.Process(run.pid).children(recursive=True) if is_executor(process)]


def is_executor(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # one that has just ended
        return process.name() == "java" and any("CoarseGrainedExecutorBackend" in word for word in process.cmdline())
    return False


def is_there(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def videos_done(root: Path) -> int:
    return sum(progress.total(str(folder))["videos"] for folder in root.glob("staging/rollout-*/w*/progress"))


@pytest.mark.parametrize(
    ("fault", "rollouts"),
    [
        pytest.param(signal.SIGKILL, 2, id="killed"),
        pytest.param(signal.SIGSTOP, 4, id="stands still", marks=pytest.mark.soak),
    ],
)
def test_an_executor_that_is_lost_costs_no_row(lake, start, fault, rollouts):
    run = start(rollouts)
    while videos_done(lake.root) < 2:
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    two = executors(run)
    assert len(two) == 2
    held = two[0].children(recursive=True)
    assert held  # its Python workers, with what decodes for them
    os.kill(two[0].pid, fault)
    assert videos_done(lake.root) < VIDEOS
    said, told = run.communicate(timeout=300)
    assert run.returncode == 0, told[-3000:]
    assert last_json(said)["counts"]["rollouts"] == 2 * VIDEOS
    found = Counter((row["video_id"], row["rollout_index"]) for row in lake.rows("traces"))
    assert set(found.values()) == {1} and len(found) == rollouts * VIDEOS
    assert {row["status"] for row in lake.rows("traces")} == {"ok"}
    assert not [process for process in (two[0], *held) if is_there(process)]

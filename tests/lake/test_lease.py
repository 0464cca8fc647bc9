"""Leases: who is dead and who is alive, on this host by its process, elsewhere by its heartbeat."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from lake import storage
from lake.lease import Lease, alive, owner, read, start_ticks
from lake.staging import run_folder

SILENCE = 100.0


def record(heartbeat: float = 0.0, **changes) -> dict:
    return {"job": "rollout", "owner": owner() | changes, "heartbeat": heartbeat, "started_at": 0.0}


@pytest.fixture
def process():
    """A process of our own that does nothing, and its owner record."""
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield started, {"pid": started.pid, "started": start_ticks(started.pid)}
    started.kill()
    started.wait()


def test_this_process_is_alive_however_long_it_was_silent():
    assert alive(record(heartbeat=-1e9), SILENCE)


def test_a_killed_process_is_dead_at_once(process):
    started, who = process
    assert alive(record(**who), SILENCE)
    started.kill()
    started.wait()
    assert not alive(record(heartbeat=time.time(), **who), SILENCE)


def test_a_killed_process_that_nobody_collected_is_dead_too(process):
    started, who = process
    started.kill()
    os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)  # it ended and stays a zombie
    assert os.path.exists(f"/proc/{started.pid}/stat")  # noqa: PTH110
    assert not alive(record(heartbeat=time.time(), **who), SILENCE)


def test_another_process_under_the_same_number_is_not_the_owner(process):
    _, who = process
    assert not alive(record(heartbeat=time.time(), **who | {"started": who["started"] - 1}), SILENCE)


@pytest.mark.parametrize("elsewhere", [{"host": "another-host"}, {"boot": "before-the-last-reboot"}, {"boot": ""}])
def test_elsewhere_the_heartbeat_decides(elsewhere):
    found = record(heartbeat=1000.0, **elsewhere)
    assert alive(found, SILENCE, now=1099.0)
    assert not alive(found, SILENCE, now=1101.0)


def later(root: str, heartbeat: float) -> dict:
    """The record once it has another heartbeat."""
    deadline = time.monotonic() + 10
    while (found := read(root, "run"))["heartbeat"] == heartbeat:
        assert time.monotonic() < deadline, "the lease never beat again"
        time.sleep(0.02)
    return found


def test_a_lease_beats_until_it_is_closed(tmp_path):
    root = str(tmp_path)
    assert read(root, "run") is None
    held = Lease(root, "run", "rollout", silence_seconds=0.2)
    first = read(root, "run")
    assert first["job"] == "rollout" and first["owner"] == owner() and alive(first, SILENCE) and held.held()
    assert later(root, first["heartbeat"])["started_at"] == first["started_at"]
    held.close()
    last = read(root, "run")["heartbeat"]
    time.sleep(0.3)
    assert read(root, "run")["heartbeat"] == last


def test_a_lease_that_was_taken_away_does_not_come_back(tmp_path):
    """A beat after the removal would make the folder of a run that others have cleaned up after."""
    held = Lease(str(tmp_path), "run", "rollout", silence_seconds=0.2)
    storage.delete(run_folder(str(tmp_path), "run"))
    time.sleep(0.3)
    assert not held.held() and read(str(tmp_path), "run") is None
    held.close()


def test_half_a_lease_names_its_file(tmp_path):
    Lease(str(tmp_path), "run", "rollout", silence_seconds=100).close()
    path = tmp_path / "staging" / "run" / "run.json"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(storage.Damaged, match=f"{path}: expected a JSON document, found 20 bytes"):
        read(str(tmp_path), "run")

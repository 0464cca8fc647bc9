"""The first command of the README, on fewer clips."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(1200)


def test_the_demo_plays_a_night_and_leaves_its_figures(tmp_path):
    asked = ["demo", "--folder", str(tmp_path / "demo"), "--history", "120", "--uploads", "12"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.runtime.cli", *asked], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == found
    assert (found["videos_new"], found["test_videos"], found["deferred"]) == (132, 12, 0)
    assert found["quarantined"] and found["duplicates"] == 1
    for figures in found["methods"].values():
        accuracy = figures["accuracy"]
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
        assert figures["ece"]["value"] >= 0 and figures["ece"]["low"] is None
    assert "One night" in done.stderr and len(done.stderr.splitlines()) < 200  # on a slow machine, too

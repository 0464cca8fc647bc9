"""Rollouts in waves beside a rival that comes and goes."""

from __future__ import annotations

from collections import Counter

import pytest
from support import Lake

from benchmarks import null_engine
from jobs.steps import rollouts

VIDEOS, WAVES = 12, 3


@pytest.fixture
def lake(spark, clip_factory, tmp_path):
    """Videos for three waves of rollouts by an engine that answers at once."""
    made = Lake(tmp_path / "lake", "engine.per_cluster=1", f"engine.kind={null_engine.KIND}")
    made.job("ingest", source=str(clip_factory("test", VIDEOS)))
    return made


def test_what_a_rival_brings_between_two_waves_is_not_made_again(lake, monkeypatch):
    """Given a rival that makes all that is left after our first wave, then our later waves find nothing to do."""
    make, came = rollouts._make_wave, []

    def wave(run, todo, rows, scope, done):
        made = make(run, todo, rows, scope, done)
        if not came:
            came.append(run.record.run_id)
            came.append(lake.job("rollout").counts["rollouts"])
        return made

    monkeypatch.setattr(rollouts, "_make_wave", wave)
    seconds = VIDEOS * 4 / lake.settings().waves.first_rate / WAVES
    mine = lake.job("rollout", f"waves.seconds={seconds}")
    assert 0 < came[1] < VIDEOS * 4 and mine.counts["rollouts"] + came[1] == VIDEOS * 4
    keys = Counter((row["video_id"], row["rollout_index"]) for row in lake.rows("traces"))
    assert len(keys) == VIDEOS * 4 and set(keys.values()) == {1}

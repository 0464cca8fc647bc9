"""Given a store that takes longer over a wave than Spark lets a worker idle, then the engine is there for the next wave."""

from __future__ import annotations

import time

from support import Lake

from benchmarks import null_engine
from lake import waves

SLOW_S = 80.0  # Spark ends workers that were idle for a minute


def test_an_engine_lives_as_long_as_its_job(spark, clip_factory, tmp_path, monkeypatch):
    lake = Lake(tmp_path / "lake", f"engine.kind={null_engine.KIND}", "engine.per_cluster=1", "rollout.n=2")
    lake.job("ingest", source=str(clip_factory("calibrate", 18)))
    publish, published = waves.publish, []

    def slow(lake, wave, audited):
        if not published and "traces" in audited:
            time.sleep(SLOW_S)
        published.append(wave.id)
        return publish(lake, wave, audited)

    monkeypatch.setattr(waves, "publish", slow)
    done = lake.job("rollout", "waves.seconds=1", "waves.first_rate=12")
    assert len(published) >= 2 and done.counts["traces"] == 36
    assert done.counts["engines"] == 1

"""Given a video that kills every engine it meets, then it alone gets error rows and all others get their traces."""

from __future__ import annotations

import os

import pytest
from support import Lake

from benchmarks import null_engine
from jobs.steps import rollouts
from udfs import rollout as udf

pytestmark = pytest.mark.timeout(1800)


def test_the_culprit_is_found_by_halving(spark, clip_factory, tmp_path, monkeypatch):
    # Every death costs the start of another engine: one that starts at once will do.
    lake = Lake(tmp_path / "lake", "engine.per_cluster=1", f"engine.kind={null_engine.KIND}")
    lake.job("ingest", source=str(clip_factory("refine", 4)))
    poison = sorted(row["video_id"] for row in lake.rows("videos"))[0]

    def deadly(plan):
        work = udf.rollout(plan)

        def run(batches):
            def look(batches):
                for batch in batches:
                    if poison in batch.column("video_id").to_pylist():
                        plan.on_engine_start()  # it was up before this video came
                        os._exit(70)
                    yield batch

            yield from work(look(batches))

        return run

    monkeypatch.setattr(rollouts, "rollout", deadly)
    run = lake.job("rollout")
    by_video: dict[str, list] = {}
    for row in lake.rows("traces"):
        by_video.setdefault(row["video_id"], []).append(row)
    assert len(by_video) == 4 and all(len(rows) == 4 for rows in by_video.values())
    assert {row["status"] for row in by_video.pop(poison)} == {"generation_error"}
    assert "generation_error" not in {row["status"] for rows in by_video.values() for row in rows}
    assert run.counts["traces"] == 16

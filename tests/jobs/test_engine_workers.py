"""Given a store that takes longer over a wave than Spark lets a worker idle, then the engine is there for the next wave."""

from __future__ import annotations

import os
import time

import pyarrow as pa
import pytest
from pyspark.sql.pandas.types import from_arrow_schema
from support import Lake

from benchmarks import null_engine
from jobs.runtime import engine_workers
from jobs.runtime.engine_workers import EngineWorkers
from lake import waves

SLOW_S = 80.0  # Spark ends workers that were idle for a minute
PIDS = pa.schema([("pid", pa.int64())])


@pytest.fixture(autouse=True)
def pool(monkeypatch, tmp_path):
    """One that no other test has left engines in."""
    monkeypatch.setattr(engine_workers, "_POOL", ("DEEPINTUIT_WORKERS", tmp_path.name))


@pytest.fixture
def workers(spark):
    told: list[str] = []
    made = EngineWorkers(lambda: spark, told.append)
    made.told = told
    yield made
    made.close()


def whoami(batches):
    for _ in batches:
        yield pa.RecordBatch.from_pylist([{"pid": os.getpid()}], PIDS)


def broken(batches):
    raise ValueError("no such worker")


def test_an_engine_lives_as_long_as_its_job(spark, clip_factory, tmp_path, monkeypatch):
    lake = Lake(tmp_path / "lake", f"engine.kind={null_engine.KIND}", "engine.per_cluster=1", "rollout.n=2")
    lake.job("ingest", source=str(clip_factory("calibrate", 18)))
    publish, slept = waves.publish, []

    def slow(lake, wave, audited):
        if not slept:
            slept.append(wave.id)
            time.sleep(SLOW_S)
        return publish(lake, wave, audited)

    monkeypatch.setattr(waves, "publish", slow)
    done = lake.job("rollout", "waves.seconds=1", "waves.first_rate=12")
    published = {row["wave_id"] for row in lake.rows("traces")}
    assert slept[0] in published and len(published) > 1 and done.counts["traces"] == 36
    assert done.counts["engines"] == 1


def test_no_other_stage_is_given_an_engines_worker(spark, workers):
    def pids(rows) -> set[int]:
        return {row["pid"] for row in rows.collect()}

    one, engines, others = spark.range(0, 1, 1, 1), set(), set()
    for _ in range(3):
        with workers.mapped(one, whoami, PIDS) as made:
            engines |= pids(made)
        others |= pids(one.mapInArrow(whoami, from_arrow_schema(PIDS)))
    assert len(engines) == 1 and engines.isdisjoint(others)


def test_what_cannot_keep_engines_says_so_once_and_stops(spark, workers, monkeypatch):
    monkeypatch.setattr(engine_workers, "stay", broken)
    monkeypatch.setattr(engine_workers, "_EVERY_S", 0.1)
    with workers.mapped(spark.range(0, 1, 1, 1), whoami, PIDS) as made:
        made.collect()
    workers._thread.join(60)
    assert not workers._thread.is_alive()
    (said,) = workers.told
    assert said.startswith("engines are not kept from here to the next wave") and "\n" not in said


def test_engines_that_have_nothing_to_do_for_long_are_not_kept(spark, workers, monkeypatch):
    monkeypatch.setattr(engine_workers, "_EVERY_S", 0.1)
    monkeypatch.setattr(engine_workers, "_LONGEST_S", 0.0)
    with workers.mapped(spark.range(0, 1, 1, 1), whoami, PIDS) as made:
        made.collect()
    workers._thread.join(60)
    assert not workers._thread.is_alive() and not workers.told

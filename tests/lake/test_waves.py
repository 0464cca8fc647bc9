"""A gate: too many broken rows hold a wave until a person releases or discards it. No model runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from jobs.runtime.run import Run
from schemas.lake import create_all
from support import Lake

from jobs import cli, staging
from lake import storage
from schemas.scores import SCORES


@pytest.fixture(scope="module")
def at_work(spark, tmp_path_factory):
    """A lake with every table, and a way to say `deepintuit waves ...` on it."""
    lake = Lake(tmp_path_factory.mktemp("waves") / "lake")
    create_all(str(lake.root))
    return lake


def said(capsys, lake: Lake, *words: str) -> tuple[int, dict | None, str]:
    """Exit code, the document on standard output and standard error of a command."""
    capsys.readouterr()
    code = cli.main([*words, "--conf", "conf/local.yaml", "--set", f"lake.root={lake.root}", "--quiet"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out.strip() else None, err


def score_row(video: str, rising: float) -> tuple:
    probs = {"falling": 0.1, "mixed": 0.2, "rising": rising}
    return (video, "handwriting", "s" * 16, probs, 4, 4, 1.0, None, datetime.now(UTC))


def put_down(spark, lake: Lake, good: int, broken: int, allowed: float = 0.05) -> tuple[Run, staging.Wave]:
    """A sealed wave of scores of a run of its own, some of which do not sum to 1; its process is gone."""
    run = Run("score", lake.settings(f"waves.max_refused={allowed}"), quiet=True)
    wave = run.next_wave()
    rows = [score_row(f"{wave.id}-{number}", 0.7 if number < good else 0.9) for number in range(good + broken)]
    frame = spark.createDataFrame(rows, SCORES.spark_schema())
    output = staging.stage(spark, wave, SCORES, frame, "scores/test")
    staging.seal(wave, run.manifest(wave, [output], {"scores": output.rows}), 1.0)
    gone = {"host": "gone", "boot": "", "pid": 1, "started": 1}
    lease = {"job": "score", "owner": gone, "heartbeat": 0.0, "started_at": 0.0}
    storage.write(storage.join(staging.run_folder(run.root, run.run_id), "run.json"), json.dumps(lease).encode())
    return run, wave


def landed(lake: Lake, wave: staging.Wave) -> int:
    return sum(row["wave_id"] == wave.id for row in lake.rows("scores"))


def test_a_held_wave_waits_for_a_person_and_is_released(spark, at_work, capsys):
    _, wave = put_down(spark, at_work, good=18, broken=2)
    for _ in range(2):  # the next run refuses, and the one after it
        code, document, err = said(capsys, at_work, "promote")
        assert (code, document) == (3, None)
        assert err.count("\n") == 1 and f"wave {wave.id} is held: scores: 2 of 20 rows" in err
        assert f"deepintuit waves release {wave.id}" in err and "probs_sum_to_one" in err
    assert landed(at_work, wave) == 0

    code, document, _ = said(capsys, at_work, "waves", "list")
    (shown,) = document["waves"]
    assert code == 0 and (shown["wave_id"], shown["state"], shown["rows"]) == (wave.id, "held", {"scores": 20})
    assert "probs_sum_to_one" in shown["faults"][0]

    code, document, _ = said(capsys, at_work, "waves", "release", wave.id)
    assert code == 0 and document == {"released": wave.id, "tables": {"scores": {"landed": 18, "refused": 2}}}
    assert landed(at_work, wave) == 18
    refused = [row for row in at_work.rows("quarantine") if row["wave_id"] == wave.id]
    assert sorted(row["row_key"] for row in refused) == [f"{wave.id}-{n}/{'s' * 16}" for n in (18, 19)]
    assert {(row["table"], row["reason"]) for row in refused} == {("scores", "probs_sum_to_one")}
    assert json.loads(refused[0]["original"])["probs"]["rising"] == 0.9
    checks = [row["check"] for row in at_work.rows("quality") if row["wave_id"] == wave.id]
    assert len(checks) == len(set(checks)) > 5  # noted when it was held, not again when it was released
    held = [row for row in at_work.rows("runs") if row["event"] == "held"]
    assert len(held) == 2 and all(wave.id in row["message"] for row in held)

    assert said(capsys, at_work, "waves", "list")[1] == {"waves": []}
    code, _, err = said(capsys, at_work, "waves", "release", wave.id)
    assert code == 2 and err.startswith("deepintuit: waves release: no staged wave")


def test_a_held_wave_is_discarded_and_leaves_nothing(spark, at_work, capsys):
    run, wave = put_down(spark, at_work, good=1, broken=1)
    with pytest.raises(staging.Held):
        staging.recover(spark, run.root, 120)
    code, document, _ = said(capsys, at_work, "waves", "discard", wave.id)
    assert (code, document) == (0, {"discarded": wave.id})
    assert staging.recover(spark, run.root, 120) == {"waves_recovered": 0, "waves_discarded": 0}
    assert landed(at_work, wave) == 0 and storage.children(storage.join(run.root, "staging")) == []


def test_a_share_that_is_allowed_exactly_passes_the_gate(spark, at_work):
    run, wave = put_down(spark, at_work, good=9, broken=1, allowed=0.1)
    settled = staging.settle(spark, wave)
    assert (settled.landed["scores"].rows, settled.refused["scores"]) == (9, 1)
    staging.recover(spark, run.root, 120)


def test_what_dead_runs_left_is_rolled_forward_or_dropped(spark, at_work):
    run, sealed = put_down(spark, at_work, good=3, broken=0)
    unsealed = run.next_wave()
    storage.write(storage.join(unsealed.data("scores"), "part.parquet"), b"half")
    assert staging.recover(spark, run.root, 120) == {"waves_recovered": 1, "waves_discarded": 1}
    assert landed(at_work, sealed) == 3 and storage.children(storage.join(run.root, "staging")) == []
    events = [row["event"] for row in at_work.rows("runs") if row["run_id"] == run.run_id]
    assert events == [f"wave {sealed.name}"]


def test_waves_of_a_run_that_is_alive_are_left_alone(spark, at_work, capsys):
    from lake.lease import Lease

    run, wave = put_down(spark, at_work, good=1, broken=0)
    alive = Lease(staging.run_folder(run.root, run.run_id), "score", 120)
    try:
        assert staging.recover(spark, run.root, 120) == {"waves_recovered": 0, "waves_discarded": 0}
        code, _, err = said(capsys, at_work, "waves", "discard", wave.id)
        assert code == 2 and "belongs to a run that is alive" in err and wave.manifest() is not None
    finally:
        alive.close()
        staging.remove_wave(wave)
        storage.delete(staging.run_folder(run.root, run.run_id))


def test_staging_that_was_changed_from_outside_is_not_published(spark, at_work):
    _, wave = put_down(spark, at_work, good=2, broken=0)
    added = spark.createDataFrame([score_row("added", 0.7)], SCORES.spark_schema())
    added.write.mode("append").parquet(wave.data("scores"))
    with pytest.raises(RuntimeError, match="expected 2 staged rows, found 3; staging was changed from outside"):
        staging.settle(spark, wave)
    assert landed(at_work, wave) == 0
    storage.delete(staging.run_folder(wave.root, wave.run_id))

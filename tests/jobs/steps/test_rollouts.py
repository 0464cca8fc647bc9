"""Rollouts of a scope: exactly what is missing, how it is cut into waves, and what is said of what was made."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import cache

import pytest
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from support import Lake

from jobs.runtime.run import Run
from jobs.steps.recipes import Recipe
from jobs.steps.rollouts import (
    _figures,
    lost_rows,
    measured_rate,
    merged,
    pending,
    refused_keys,
    say_statuses,
    trace_rows,
    wave_count,
)
from lake import catalog, commit
from lake.audit import audit
from lake.parquet import DataFile
from lake.staging import Staged
from lake.table import spark_schema
from schemas.label_set import LabelSet
from schemas.runs import RUNS
from schemas.traces import STATUSES, TRACES
from udfs.rollout import TRACE_COLUMNS

RECIPE = Recipe("r", {}, "")
TRIED = [
    # video, recipe, index, attempt, status
    ("all", "r", 0, 0, "ok"),
    ("all", "r", 1, 0, "parse_error"),
    ("all", "r", 2, 0, "decode_error"),
    ("half", "r", 1, 0, "too_long"),
    ("other", "q", 0, 0, "ok"),
    ("other", "q", 1, 0, "ok"),
    ("again", "r", 0, 0, "generation_error"),
    ("again", "r", 1, 0, "generation_error"),
    ("again", "r", 1, 1, "generation_error"),
    ("again", "r", 2, 0, "ok"),
    ("mended", "r", 0, 0, "generation_error"),
    ("mended", "r", 0, 1, "ok"),
    ("mended", "r", 1, 0, "ok"),
    ("mended", "r", 2, 0, "ok"),
    ("given up", "r", 0, 0, "generation_error"),
    ("given up", "r", 0, 1, "generation_error"),
    ("given up", "r", 0, 2, "generation_error"),
]
REFUSED = [
    ("traces", "refused/r/now/0/0"),
    ("traces", "refused/r/now/2/0"),
    ("traces", "refused/r/before/1/0"),  # with another text beside it
    ("traces", "half/q/now/0/0"),  # another recipe
    ("scores", "half/r/now/2/0"),  # another table
    ("traces", "again/r/now/0/1"),  # the second try was refused
]


@pytest.fixture(scope="module")
def missing(spark):
    """missing(k, attempts) -> {(video, attempt): rollout indices}."""
    names = ("new", "all", "half", "other", "again", "mended", "given up", "refused", "retold")
    rows = [(name, "now", f"/{name}") for name in names]
    videos = spark.createDataFrame(rows, "video_id string, input_digest string, uri string")
    tried = [(*row, "now") for row in TRIED] + [("retold", "r", index, 0, "ok", "before") for index in range(3)]
    columns = "video_id string, recipe_id string, rollout_index int, attempt int, status string, input_digest string"
    traces = spark.createDataFrame(tried, columns)
    quarantine = spark.createDataFrame(REFUSED, "`table` string, row_key string")
    refused = refused_keys(quarantine, TRACES.name)

    @cache
    def compute(k: int, attempts: int = 3) -> dict:
        rows = pending(videos, traces, refused, "r", k, attempts).collect()
        assert all(row["uri"] == f"/{row['video_id']}" for row in rows)
        assert len(rows) == len({(row["video_id"], row["attempt"]) for row in rows})
        return {(row["video_id"], row["attempt"]): row["missing"] for row in rows}

    return compute


def test_what_is_missing_at_three_rollouts(missing):
    assert missing(3) == {
        ("new", 0): [0, 1, 2],
        ("half", 0): [0, 2],
        ("other", 0): [0, 1, 2],  # the rollouts of another recipe do not count
        ("again", 2): [1],
        ("given up", 0): [1, 2],
        ("refused", 0): [1],
        ("retold", 0): [0, 1, 2],  # there was another text beside it
    }


def test_more_rollouts_add_only_the_new_ones(missing):
    three, five = missing(3), missing(5)
    for name in ("all", "mended"):
        assert (name, 0) not in three and five[name, 0] == [3, 4]
    assert five["half", 0] == [0, 2, 3, 4] and five["again", 0] == [3, 4] and five["again", 2] == [1]


def test_fewer_rollouts_ask_for_fewer(missing):
    assert missing(1) == {(name, 0): [0] for name in ("new", "half", "other", "retold")}


def test_passing_failures_are_tried_again_as_often_as_allowed(missing):
    assert ("again", 2) not in missing(3, attempts=2)
    assert missing(3, attempts=4)["given up", 3] == [0]
    assert not any(attempt for _, attempt in missing(3, attempts=1))


@pytest.mark.parametrize(
    ("seconds", "left", "waves"),
    [
        (10, None, 1),
        (600, None, 1),
        (601, None, 2),
        (6000, None, 10),
        (6000, 36_000, 10),  # a deadline far away changes nothing
        (6000, 300, 40),  # a wave takes half of what is left, so that one is done
        (6000, 0, 100),  # never below a tenth of the aim: the deadline stops the run before the first
    ],
)
def test_waves_aim_at_ten_minutes_and_at_a_near_deadline(seconds, left, waves):
    assert wave_count(seconds, 600, left) == waves


@pytest.fixture
def run(spark, tmp_path):
    return Run("rollout", Lake(tmp_path / "lake", "waves.seconds=600").settings(), quiet=True)


def traces_of(spark, **statuses: int):
    """Rows of the table traces with these statuses: two rollouts a video, ten tokens each."""
    names = [name for name, count in statuses.items() for _ in range(count)]
    rows = [(f"v{place // 2}", place % 2, status, 10) for place, status in enumerate(names)]
    return spark.createDataFrame(rows, "video_id string, rollout_index int, status string, tokens int")


def said_of(run, spark, capsys, **statuses: int) -> str:
    run.record.add(_figures(traces_of(spark, **statuses), RECIPE))
    capsys.readouterr()
    say_statuses(run)
    return capsys.readouterr().err


def test_a_wave_is_counted_by_status(spark):
    assert _figures(traces_of(spark, ok=3, parse_error=2, too_long=1), RECIPE) == {
        "rollouts": 6,
        "videos": 3,
        "tokens": 60,
        "status_ok": 3,
        "status_parse_error": 2,
        "status_too_long": 1,
        "status_generation_error": 0,
        "status_decode_error": 0,
    }
    nothing = _figures(traces_of(spark, ok=1).where("false"), RECIPE)
    assert set(nothing.values()) == {0} and nothing.keys() == {"rollouts", "videos", "tokens"} | {
        f"status_{status}" for status in STATUSES
    }


def test_a_model_that_writes_nothing_usable_is_a_warning_in_sight(run, spark, capsys):
    """Also where progress is not wanted: this is no success."""
    assert run.record.quiet
    said = said_of(run, spark, capsys, parse_error=40)
    assert said == (
        "[rollout] WARNING: only 0 of 40 traces are usable: 40 parse_error; look at their text and error: "
        "does the model at model.path know these labels?\n"
    )


@pytest.mark.parametrize(("ok", "warned"), [(19, True), (20, False), (40, False)])
def test_less_than_half_usable_is_a_warning(run, spark, capsys, ok, warned):
    assert ("WARNING" in said_of(run, spark, capsys, ok=ok, too_long=40 - ok)) == warned


def test_the_statuses_of_all_waves_together_are_said_and_silence_is_for_a_run_without_traces(run, spark, capsys):
    run.record.quiet = False
    say_statuses(run)
    assert capsys.readouterr().err == ""
    assert said_of(run, spark, capsys, ok=8, decode_error=2) == "[rollout] 10 traces: 8 ok, 2 decode_error\n"
    assert said_of(run, spark, capsys, ok=1990) == "[rollout] 2,000 traces: 1,998 ok, 2 decode_error\n"


def test_videos_that_no_engine_survives_get_rows_that_keep_their_contract(spark, tmp_path):
    todo = spark.createDataFrame(
        [("a", "0", [0, 2], 1, date(2026, 3, 1)), ("b", "0", [1], 0, date(2026, 3, 2))],
        "video_id string, input_digest string, missing array<int>, attempt int, ingested_on date",
    )
    lost = lost_rows(todo)
    wanted = from_arrow_schema(TRACE_COLUMNS)
    assert [(f.name, f.dataType) for f in lost.schema] == [(f.name, f.dataType) for f in wanted]
    found = {(row["video_id"], row["rollout_index"]): row for row in lost.collect()}
    assert found.keys() == {("a", 0), ("a", 2), ("b", 1)}
    assert {(row["status"], row["finish_reason"]) for row in found.values()} == {("generation_error", "error")}
    assert found["a", 2]["attempt"] == 1 and found["b", 1]["ingested_on"] == date(2026, 3, 2)
    assert all("died over this video" in row["error"] and row["label"] is None for row in found.values())
    rows = trace_rows(lost, "t", "0123456789abcdef").withColumn("wave_id", F.lit("r.w00001"))
    rows.write.parquet(str(tmp_path / "rows"))
    staged = spark.read.schema(spark_schema(TRACES)).parquet(str(tmp_path / "rows"))
    judged = audit(staged, TRACES.contract(LabelSet(("a", "b"))), TRACES.key)
    assert (judged.rows, judged.refused) == (3, {})


def test_rows_staged_in_several_goes_are_one_output():
    def file(name: str) -> DataFile:
        return DataFile(name, 1, 2, {}, "{}")

    whole = merged(
        [
            Staged("traces", (file("a"), file("b")), (file("q"),), {"too_bad": 1, "odd": 2}),
            Staged("traces", (file("c"),), (), {"odd": 3}),
        ]
    )
    assert [one.name for one in whole.files] == ["a", "b", "c"] and [one.name for one in whole.quarantine] == ["q"]
    assert whole.reasons == {"too_bad": 1, "odd": 5} and (whole.kept, whole.rows) == (6, 12)


def test_the_rate_is_that_of_the_last_long_waves_of_the_recipe(run, spark):
    catalog.create_all(run.lake.root)
    assert measured_rate(run, RECIPE) is None
    waves = [
        # recipe, event, seconds, rollouts
        ("r", "wave w00001", 300.0, 600),
        ("r", "wave w00002", 150.0, 1200),  # just long enough
        ("r", "wave w00003", 149.0, 9000),  # the start of the engines is most of it
        ("r", "wave w00004", 600.0, 0),  # a wave of scores
        ("r", "finished", 600.0, 9000),
        ("q", "wave w00001", 600.0, 9000),
    ]
    rows = [
        {
            "run_id": recipe,
            "event": event,
            "job": "rollout",
            "task": "t",
            "at": datetime.now(UTC),
            "seconds": seconds,
            "versions": [("recipe_id", recipe)],
            "counts": [("rollouts", rollouts)],
        }
        for recipe, event, seconds, rollouts in waves
    ]
    commit.note_once(RUNS, run.lake.root, rows, "tests", "tests.w00000")
    assert measured_rate(run, RECIPE) == pytest.approx(1800 / 450)
    assert measured_rate(run, Recipe("unknown", {}, "")) is None

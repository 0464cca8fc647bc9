"""Pending rollouts: literal rows in, exactly what is missing out."""

from __future__ import annotations

import pytest

from jobs.rollout import in_scope, in_waves, oldest, pending, wave_count

TRACES = [
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
QUARANTINE = [
    ("traces", "refused/r/0/0"),
    ("traces", "refused/r/2/0"),
    ("traces", "half/q/0/0"),  # another recipe
    ("scores", "half/r/2/0"),  # another table
    ("traces", "again/r/0/1"),  # the second try was refused
]


@pytest.fixture(scope="module")
def missing(spark):
    """missing(k, attempts) -> {(video, attempt): rollout indices}."""
    names = ("new", "all", "half", "other", "again", "mended", "given up", "refused")
    videos = spark.createDataFrame([(name, f"/{name}") for name in names], "video_id string, uri string")
    traces = spark.createDataFrame(
        TRACES, "video_id string, recipe_id string, rollout_index int, attempt int, status string"
    )
    quarantine = spark.createDataFrame(QUARANTINE, "`table` string, row_key string")

    def compute(k: int, attempts: int = 3) -> dict:
        rows = pending(videos, traces, quarantine, "r", k, attempts).collect()
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
    }


def test_more_rollouts_add_only_the_new_ones(missing):
    three, five = missing(3), missing(5)
    for name in ("all", "mended"):
        assert (name, 0) not in three and five[name, 0] == [3, 4]
    assert five["half", 0] == [0, 2, 3, 4] and five["again", 0] == [3, 4] and five["again", 2] == [1]


def test_fewer_rollouts_ask_for_fewer(missing):
    assert missing(1) == {(name, 0): [0] for name in ("new", "half", "other")}


def test_passing_failures_are_tried_again_as_often_as_allowed(missing):
    assert ("again", 2) not in missing(3, attempts=2)
    assert missing(3, attempts=4)["given up", 3] == [0]
    assert not any(attempt for _, attempt in missing(3, attempts=1))


def test_scope_is_one_stage_of_one_task_or_everything(spark):
    videos = spark.sql(
        "SELECT explode(array('a','b','c')) AS video_id, '/' AS uri, 1D AS duration_s, now() AS ingested_at"
    )
    splits = spark.createDataFrame(
        [("a", "t", "test"), ("b", "t", "align"), ("c", "u", "test")], "video_id string, task string, split string"
    )
    assert [row["video_id"] for row in in_scope(videos, splits, "t", "test").collect()] == ["a"]
    assert in_scope(videos, splits, "t", None).count() == 3


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


def test_a_video_is_in_one_wave_and_the_oldest_are_taken_first(spark):
    rows = [(f"v{n}", attempt, n) for n in range(50) for attempt in (0, 1)]
    todo = spark.createDataFrame(rows, "video_id string, attempt int, ingested_at int")
    places = in_waves(todo, 4).collect()
    assert len(places) == 100 and {row["wave"] for row in places} == {0, 1, 2, 3}
    assert len({(row["video_id"], row["wave"]) for row in places}) == 50
    assert {row["video_id"] for row in oldest(todo, 3).collect()} == {"v0", "v1", "v2"}

"""Views: given a few literal rows, what holds now."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from schemas.lake import BY_NAME

from schemas import lake

LIVE = [{"task": "t", "recipe_id": "r", "scorer_id": "s1", "rule_id": "u1"}]


def at(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


def ext(source: str, name: str) -> str:
    return "ext:" + hashlib.sha256(f"{source}\n{name}".encode()).hexdigest()


def label(video: str, slug: str, day: int, source: str = "people", task: str = "t") -> dict:
    return {"video_id": video, "task": task, "label": slug, "source": source, "observed_at": at(day)}


def file(name: str, video: str, status: str = "ok", source: str = "files") -> dict:
    return {"uri": f"/{source}/{name}", "source": source, "external_id": name, "status": status, "video_id": video}


def score(video: str, scorer: str, rule: str, top: float, abstain: bool) -> tuple[dict, dict]:
    decided = {"video_id": video, "task": "t", "scorer_id": scorer, "rule_id": rule, "top_prob": top}
    return (
        {"video_id": video, "task": "t", "scorer_id": scorer, "probs": {"a": top, "b": 1 - top}},
        decided | {"abstain": abstain, "label": None if abstain else "a"},
    )


SCORED = [
    score("v1", "s1", "u1", 0.9, False),
    score("v1", "s1", "u2", 0.9, True),  # another rule
    score("v1", "s2", "u1", 0.8, True),  # another scorer
    score("v2", "s1", "u1", 0.55, True),
    score("v3", "s1", "u1", 0.51, True),
]
ROWS = {
    "files": [
        file("late", "V-late"),
        file("late copy", "V-late"),
        file("late", "V-else", source="else"),
        file("bad", "V-bad", "refused"),
        file("two names", "V-two"),
        file("replaced", "V-before"),
        file("replaced", "V-after"),
    ],
    "videos": [{"video_id": video, "uri": f"/{video}"} for video in ("v1", "v2", "v3")],
    "labels": [
        label("v1", "a", 1),
        label("v1", "b", 3, source="corrected"),
        label("v1", "a", 2, source="between"),
        label("v1", "c", 1, task="another"),
        label("v2", "b", 1, source="z"),
        label("v2", "a", 1, source="y"),
        label(ext("files", "late"), "a", 1),
        label(ext("files", "never"), "a", 1),
        label(ext("files", "bad"), "a", 1),
        label(ext("files", "two names"), "a", 1),
        label("V-two", "b", 2),
    ],
    "splits": [
        {"video_id": "v1", "task": "t", "split": "test", "assigned_at": at(1)},
        {"video_id": "v1", "task": "t", "split": "align", "assigned_at": at(2)},
        {"video_id": ext("files", "late"), "task": "t", "split": "calibrate", "assigned_at": at(1)},
        {"video_id": "V-before", "task": "t", "split": "test", "assigned_at": at(1)},
        {"video_id": "V-after", "task": "t", "split": "align", "assigned_at": at(2)},
        {"video_id": "V-late", "task": "t", "split": "test", "assigned_at": at(2)},
    ],
    "traces": [
        {"video_id": "v1", "recipe_id": "r", "rollout_index": index, "attempt": attempt, "status": status}
        for index, attempt, status in [(0, 0, "ok"), (1, 0, "generation_error"), (1, 2, "ok"), (1, 1, "too_long")]
    ]
    + [{"video_id": "v1", "recipe_id": "q", "rollout_index": 1, "attempt": 0, "status": "parse_error"}],
    "scores": list({(s["video_id"], s["scorer_id"]): s for s, _ in SCORED}.values()),
    "decisions": [decision for _, decision in SCORED],
}


@pytest.fixture(scope="module")
def now(spark, tmp_path_factory):
    """view name -> its rows, over a lake that holds the rows above."""
    root = str(tmp_path_factory.mktemp("views"))
    lake.create_all(root)
    for name, rows in ROWS.items():
        table = BY_NAME[name]
        columns = [column.name for column in table.columns]
        assert all(row.keys() <= set(columns) for row in rows)
        values = [tuple(row.get(column) for column in columns) for row in rows]
        spark.createDataFrame(values, table.spark_schema()).write.format("delta").mode("append").save(table.path(root))
    lake.register_views(spark, root, LIVE)
    return {name: [row.asDict() for row in spark.table(name).collect()] for name in (*lake.VIEWS, "live")}


def test_the_latest_statement_wins_however_late_it_was_written(now):
    found = {(row["task"], row["video_id"]): row["label"] for row in now["current_labels"]}
    assert found["t", "v1"] == "b" and found["another", "v1"] == "c"


def test_of_statements_of_one_moment_the_source_decides(now):
    assert [row["source"] for row in now["current_labels"] if row["video_id"] == "v2"] == ["y"]


def test_a_name_finds_its_video_once_the_bytes_have_arrived(now):
    found = {row["video_id"]: row["label"] for row in now["current_labels"]}
    assert found["V-late"] == "a" and ext("files", "late") not in found
    assert found["V-two"] == "b"  # the later statement is about the content
    assert "V-else" not in found  # a file of that name at another source is another video


def test_a_name_without_a_readable_file_keeps_waiting(now):
    found = {row["video_id"] for row in now["current_labels"]}
    assert {ext("files", "never"), ext("files", "bad")} <= found and "V-bad" not in found


def test_every_video_has_one_label_and_one_split_a_task(now):
    for view in ("current_labels", "current_splits"):
        keys = [(row["video_id"], row["task"]) for row in now[view]]
        assert len(keys) == len(set(keys))


def test_the_first_stage_keeps_a_video_also_if_it_was_given_by_name(now):
    splits = {row["video_id"]: row["split"] for row in now["current_splits"]}
    assert (splits["v1"], splits["V-late"]) == ("test", "calibrate")


def test_a_replaced_file_stays_in_the_stage_of_what_it_held_before(now):
    splits = {row["video_id"]: row["split"] for row in now["current_splits"]}
    assert splits.keys() == {"v1", "V-late", "V-before", "V-after"}
    assert splits["V-before"] == splits["V-after"] == "test"


def test_of_several_attempts_the_last_counts(now):
    found = {(row["recipe_id"], row["rollout_index"]): row["status"] for row in now["current_traces"]}
    assert found == {("r", 0): "ok", ("r", 1): "ok", ("q", 1): "parse_error"}


def test_scores_are_those_of_the_live_scorer_and_rule(now):
    assert now["live"] == LIVE
    found = {row["video_id"]: (row["scorer_id"], row["rule_id"], row["label"]) for row in now["current_scores"]}
    assert found == {"v1": ("s1", "u1", "a"), "v2": ("s1", "u1", None), "v3": ("s1", "u1", None)}
    assert len(now["current_scores"]) == 3


def test_the_review_queue_holds_what_abstained_least_certain_first(now):
    assert [row["video_id"] for row in now["review_queue"]] == ["v3", "v2"]


def test_one_view_alone_says_the_same(now, spark, tmp_path):
    lake.create_all(str(tmp_path))
    for name in lake.VIEWS:
        assert lake.view(spark, str(tmp_path), name, LIVE).collect() == []

"""Views: given a few literal rows, what holds now."""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, date, datetime
from itertools import count

import pyarrow as pa
import pytest

from lake.catalog import Lake, create_all, require
from lake.commit import append_once
from lake.parquet import PartWriter
from lake.storage import Damaged
from lake.table import LakeError, arrow_schema
from schemas.tables import BY_NAME
from schemas.views import VIEWS

DAY = date(2026, 1, 1)


def at(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


NAMED: dict[str, str] = {}  # ids of videos that have not come, and the names that they stand for


def ext(source: str, name: str) -> str:
    made = "ext:" + hashlib.sha256(f"{source}\n{name}".encode()).hexdigest()
    NAMED[made] = name
    return made


def label(video: str, slug: str, day: int, source: str = "people", task: str = "t") -> dict:
    return {"video_id": video, "task": task, "label": slug, "labels": [slug], "source": source, "observed_at": at(day)}


def text(video: str, field: str, words: str, day: int) -> dict:
    return {"video_id": video, "field": field, "text": words, "source": "s", "observed_at": at(day)}


def file(name: str, video: str, status: str = "ok", source: str = "files", folder: str = "") -> dict:
    uri = f"/{source}/{folder}{name}.mp4"
    return {"uri": uri, "source": source, "external_id": name, "status": status, "video_id": video}


def fact(video: str, name: str, value: str, day: int, source: str = "people") -> dict:
    return {"video_id": video, "task": "t", "name": name, "value": value, "source": source, "observed_at": at(day)}


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
    score("v4", "s2", "u1", 0.9, False),  # only what was live before knows it
    score("v5", "s3", "u1", 0.9, False),  # never promoted
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
        file("0001", "V-a", folder="a/"),
        file("0001", "V-b", folder="b/"),
        file("x", "V-mp4") | {"uri": "/files/x.mp4"},
        file("x", "V-avi") | {"uri": "/files/x.avi"},
    ],
    "videos": [{"video_id": video, "uri": f"/{video}"} for video in ("v1", "v2", "v3", "v4", "v5")],
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
        label(ext("files", "a/0001"), "a", 1),
        label(ext("files", "b/0001.mp4"), "b", 1),
        label(ext("files", "x.avi"), "b", 1),
        label(ext("files", "c/0001"), "c", 1),
    ],
    "facets": [
        fact("v1", "kind", "night", 1),
        fact("v1", "kind", "day", 2),
        fact("v1", "kind", "indoor", 2),
        fact("v1", "writer", "w1", 1),
        fact(ext("files", "b/0001"), "kind", "night", 1),
    ],
    "splits": [
        {"video_id": "v1", "task": "t", "split": "test", "assigned_at": at(1)},
        {"video_id": "v1", "task": "t", "split": "align", "assigned_at": at(2)},
        {"video_id": ext("files", "late"), "task": "t", "split": "calibrate", "assigned_at": at(1)},
        {"video_id": "V-before", "task": "t", "split": "test", "assigned_at": at(1)},
        {"video_id": "V-after", "task": "t", "split": "align", "assigned_at": at(2)},
        {"video_id": "V-late", "task": "t", "split": "test", "assigned_at": at(2)},
    ],
    "texts": [
        text("v1", "title", "Cats", 1),
        text("v1", "title", "Dogs", 3),
        text("v1", "title", "Mice", 2),
        text("v1", "transcript", "Meow.", 1),
        text("v2", "title", "taken back", 1),
        text("v2", "title", "", 2),
        text(ext("files", "late"), "title", "Late", 1),
        text(ext("files", "never"), "title", "Never", 1),
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
    create_all(root)
    for name, rows in ROWS.items():
        put_down(root, name, rows)
    lake = Lake(root, lambda: spark)
    for scorer, rule, day in (("s2", "u1", 1), ("s1", "u2", 2), ("s1", "u1", 3)):  # the last one is live
        lake.registry.promote("t", pair(scorer, rule, day))
    lake.register_views()
    return {name: [row.asDict() for row in spark.table(name).collect()] for name in VIEWS}


def test_a_lake_that_has_lost_a_table_is_told_and_no_empty_one_is_put_in_its_place(tmp_path):
    root = str(tmp_path / "lake")
    for made in (create_all, create_all, require):
        made(root)
    aside = shutil.move(tmp_path / "lake/tables/traces", tmp_path / "aside")
    for made in (create_all, require):
        with pytest.raises(
            LakeError, match=rf"has lost tables: put back {root}/tables/traces .* delete {root}/lake.json"
        ):
            made(root)
    assert not (tmp_path / "lake/tables/traces").exists()
    shutil.move(aside, tmp_path / "lake/tables/traces")
    require(root)
    (tmp_path / "lake/lake.json").write_text("")
    with pytest.raises(Damaged, match=r"lake\.json: expected the lake's schema version as JSON, found .*: delete it"):
        require(root)
    (tmp_path / "lake/lake.json").unlink()
    with pytest.raises(LakeError, match=r"expected lake\.json beside the tables, found none: .* keeps what is there"):
        require(root)
    shutil.rmtree(tmp_path / "lake/tables/traces")
    create_all(root)  # a lake whose making was cut short is made to its end
    require(root)


def pair(scorer: str, rule: str, day: int) -> dict:
    """Versions as `promote` puts them down."""
    return {"task": "t", "recipe_id": "r", "scorer_id": scorer, "rule_id": rule, "promoted_at": at(day).isoformat()}


_NUMBERS = count()


def _called(table: str, row: dict) -> dict:
    """The name under which something was said of a video that has not come."""
    name = NAMED.get(row.get("video_id"))
    return {"external_id": name} if name and table in ("labels", "splits", "facets", "texts") else {}


def put_down(root: str, name: str, rows: list[dict]) -> None:
    """Commit literal rows, without asking their contract."""
    table = BY_NAME[name]
    columns = {column.name for column in table.columns}
    always = {"ingested_on": DAY, "input_digest": "0", "scored_at": at(1)}
    defaults = {column: value for column, value in always.items() if column in columns}
    assert all(row.keys() <= columns for row in rows)
    values = [dict.fromkeys(columns) | defaults | _called(name, row) | row for row in rows]
    with PartWriter(table, root, "test.w00001") as parts:
        parts.write(pa.Table.from_pylist(values, arrow_schema(table)))
        append_once(table, root, parts.close(), f"test/{name}/{next(_NUMBERS)}", "test.w00001")


def test_the_latest_text_of_a_field_counts_and_finds_the_video_that_came_later(now):
    found = {(row["video_id"], row["field"]): row["text"] for row in now["current_texts"]}
    assert found["v1", "title"] == "Dogs" and found["v1", "transcript"] == "Meow."
    assert found["v2", "title"] == ""  # taken back
    assert found["V-late", "title"] == "Late"


def test_of_two_scores_of_a_video_whose_text_changed_the_later_is_current_until_it_changes_back(spark, tmp_path):
    create_all(str(tmp_path))
    for digest, day, top in (("before", 1, 0.9), ("after", 2, 0.7)):
        scored, decided = score("v1", "s1", "u1", top, False)
        put_down(str(tmp_path), "scores", [scored | {"input_digest": digest, "scored_at": at(day)}])
        put_down(str(tmp_path), "decisions", [decided | {"input_digest": digest}])
    put_down(str(tmp_path), "videos", [{"video_id": "v1", "uri": "/v1"}])
    lake = Lake(str(tmp_path), lambda: spark)
    lake.registry.promote("t", pair("s1", "u1", 1))
    assert [row["top_prob"] for row in lake.view("current_scores").collect()] == [0.7]
    back = {"video_id": "v1", "task": "t", "recipe_id": "r", "input_digest": "before"}
    put_down(str(tmp_path), "inputs", [back | {"noted_at": at(3)}])
    assert [row["top_prob"] for row in lake.view("current_scores").collect()] == [0.9]
    put_down(str(tmp_path), "inputs", [back | {"input_digest": "after", "noted_at": at(4)}])
    assert [row["top_prob"] for row in lake.view("current_scores").collect()] == [0.7]


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


def test_a_name_may_say_folders_and_extension(now):
    found = {row["video_id"]: row["label"] for row in now["current_labels"]}
    assert (found["V-a"], found["V-b"], found["V-avi"]) == ("a", "b", "b")
    assert "V-mp4" not in found and found[ext("files", "c/0001")] == "c"


def test_of_a_fact_all_values_of_the_latest_statement_count(now):
    found = sorted((row["video_id"], row["name"], row["value"]) for row in now["current_facets"])
    assert found == [("V-b", "kind", "night"), ("v1", "kind", "day"), ("v1", "kind", "indoor"), ("v1", "writer", "w1")]


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


def test_scores_are_those_of_the_live_scorer_and_rule_where_they_know_the_video(now):
    assert [(row["scorer_id"], row["rule_id"]) for row in now["live"]] == [("s1", "u1")]
    found = {row["video_id"]: (row["scorer_id"], row["rule_id"], row["label"]) for row in now["current_scores"]}
    live = ("s1", "u1")
    assert found == {"v1": (*live, "a"), "v2": (*live, None), "v3": (*live, None), "v4": ("s2", "u1", "a")}
    assert {row["video_id"] for row in now["current_scores"] if not row["is_live"]} == {"v4"}
    assert len(now["current_scores"]) == 4


def test_a_promotion_empties_nothing(spark, tmp_path):
    """Given scores of s1, when s2 goes live with no score yet, then those of s1 are shown until s2 has its own."""
    root = str(tmp_path)
    create_all(root)
    old, new = score("v1", "s1", "u1", 0.9, False), score("v1", "s2", "u1", 0.6, True)
    put_down(root, "videos", [{"video_id": "v1", "uri": "/v1"}])
    put_down(root, "scores", [old[0]])
    put_down(root, "decisions", [old[1]])
    lake = Lake(root, lambda: spark)
    shown = []
    for scorer, day in (("s1", 1), ("s2", 2), ("s1", 3)):  # ... and back again
        lake.registry.promote("t", pair(scorer, "u1", day))
        shown.append([(row["scorer_id"], row["is_live"]) for row in lake.view("current_scores").collect()])
        if scorer == "s2":
            put_down(root, "scores", [new[0]])
            put_down(root, "decisions", [new[1]])
            shown.append([(row["scorer_id"], row["is_live"]) for row in lake.view("current_scores").collect()])
    assert shown == [[("s1", True)], [("s1", False)], [("s2", True)], [("s1", True)]]


def test_the_review_queue_holds_what_abstained_and_nobody_has_labelled(now):
    assert {row["video_id"] for row in now["current_scores"] if row["abstain"]} == {"v2", "v3"}
    assert [row["video_id"] for row in now["review_queue"]] == ["v3"]  # people have said what v2 is


def test_one_view_alone_says_the_same(spark, tmp_path):
    create_all(str(tmp_path))
    lake = Lake(str(tmp_path), lambda: spark)
    for name in VIEWS:
        assert lake.view(name).collect() == []

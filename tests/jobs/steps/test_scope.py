"""Scopes: which videos a job takes on, cut oldest first, and what of a table is read for them."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta

import pytest
from support import Lake

from jobs.runtime.run import Run
from jobs.steps.scope import COLUMNS, Scope, cut, fix, in_split, of_split, oldest, parts
from lake import catalog, commit
from schemas.splits import SPLITS
from schemas.videos import VIDEOS

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
SCHEMA = (
    "video_id string, input_digest string, input_text string, uri string, duration_s double, ingested_at timestamp, "
    "ingested_on date, wave_id string"
)


@pytest.fixture(scope="module")
def run(spark, tmp_path_factory):
    return Run("tests", Lake(tmp_path_factory.mktemp("scope") / "lake").settings(), quiet=True)


@pytest.fixture(scope="module")
def videos(spark):
    """videos({id: hours after BEGAN}) -> rows with COLUMNS."""

    def make(ages: dict[str, float], times: int = 1, digest: str = "0"):
        rows = []
        for name, hours in ages.items():
            at = BEGAN + timedelta(hours=hours)
            rows += [(name, digest, None, f"/{name}", 1.0, at, at.date(), "w")] * times
        return spark.createDataFrame(rows, SCHEMA)

    return make


def ids(rows) -> list[str]:
    return sorted(row["video_id"] for row in rows.collect())


def test_a_scope_stays_as_it_is_whatever_happens_to_the_lake(run, videos, spark, tmp_path):
    table = str(tmp_path / "videos")
    videos({"b": 30, "a": 1, "c": 2}).selectExpr("*", "1 AS more").write.parquet(table)
    scope = fix(run, "fixed", spark.read.parquet(table))
    shutil.rmtree(table)
    assert ids(scope.videos) == ["a", "b", "c"] and scope.count == 3
    assert scope.videos.columns == list(COLUMNS)
    assert scope.days == (date(2026, 3, 1), date(2026, 3, 2))


def test_a_scope_without_videos_has_no_rows_of_any_table(run, videos, spark):
    nobody = fix(run, "nobody", videos({"a": 1}).where("false"))
    assert (nobody.count, nobody.days) == (0, ())
    for rows in (nobody.of(videos({"a": 1})), nobody.within(videos({"a": 1})), nobody.without(videos({"a": 1}))):
        assert rows.count() == 0
    assert list(parts(run, "nobody-parts", nobody, 5)) == []


def test_what_a_table_has_of_a_scope_and_who_of_the_scope_has_nothing_there(run, videos):
    scope = fix(run, "asked", videos({"a": 1, "b": 2, "c": 30}))
    scores = videos({"a": 1, "neighbour": 3, "c": 30, "stranger": 100}, times=2)
    assert ids(scope.of(scores)) == ["a", "a", "c", "c"]
    assert ids(scope.within(scores)) == ["a", "a", "c", "c", "neighbour", "neighbour"]  # whole days
    assert ids(scope.without(scores)) == ["b"]


def test_rows_about_another_text_are_not_those_of_the_scope(run, videos):
    scope = fix(run, "told", videos({"a": 1, "b": 2}))
    scores = videos({"a": 1}, digest="before").unionByName(videos({"b": 2}))
    assert ids(scope.of(scores)) == ["b"]
    assert ids(scope.without(scores)) == ["a"]
    assert ids(scope.of(scores.drop("input_digest"))) == ["a", "b"]  # a table about videos, whatever is said of them


def test_the_folders_of_other_days_are_not_even_opened(run, videos, spark, tmp_path):
    table = tmp_path / "scores"
    videos({"a": 1, "b": 30, "c": 60}).write.partitionBy("ingested_on").parquet(str(table))
    for file in (table / "ingested_on=2026-03-02").glob("*.parquet"):
        file.write_bytes(b"nobody may read this")
    rows = spark.read.schema(SCHEMA).option("basePath", str(table)).parquet(str(table))
    scope = fix(run, "two-days", videos({"a": 1, "c": 60}))
    assert ids(scope.of(rows)) == ["a", "c"] and scope.without(rows).count() == 0
    with pytest.raises(Exception, match=r"(?i)parquet"):
        rows.collect()


def test_of_very_many_days_the_first_and_the_last_are_the_bounds(run, videos, spark):
    days = tuple(BEGAN.date() + timedelta(days=n) for n in range(0, 800, 2))
    scope = Scope(videos({"a": 0, "z": 24 * 798}), 2, days)
    rows = videos({"before": -1, "a": 0, "between": 24, "z": 24 * 798 + 23, "after": 24 * 799})
    assert ids(scope.within(rows)) == ["a", "between", "z"]
    assert ids(scope.of(rows)) == ["a", "z"]


def test_work_is_cut_oldest_first_and_a_video_is_in_one_part(run, videos):
    """Uploads come in bursts: ten videos of the same moment each, and two tries of every video."""
    ages = {f"v{n:02}": 40 - n // 10 * 10 for n in range(50)}
    found = [ids(part) for part in cut(run, "cut", videos(ages, times=2), 4)]
    assert len(found) == 4 and min(map(len, found)) > 0
    assert sorted(name for part in found for name in part) == sorted([*ages, *ages])
    assert all(part.count(name) == 2 for part in found for name in part)
    oldest_first = sorted(ages, key=lambda name: (ages[name], name))
    assert [name for part in found for name in sorted(set(part), key=oldest_first.index)] == oldest_first


def test_parts_without_rows_are_left_out(run, videos):
    (only,) = cut(run, "one", videos({"a": 1}), 5)
    assert ids(only) == ["a"] and set(COLUMNS) == set(only.columns)


def test_parts_are_scopes_of_about_one_size_and_a_small_scope_is_its_own_part(run, videos):
    scope = fix(run, "whole", videos({f"v{n:02}": 24 * n for n in range(25)}))
    assert list(parts(run, "same", scope, 25)) == [scope]
    found = list(parts(run, "parts", scope, 10))
    assert sum(part.count for part in found) == 25 and len(found) == 3
    assert [ids(part.videos)[0] for part in found] == sorted(ids(part.videos)[0] for part in found)
    assert all(part.count == len(part.days) == part.videos.count() for part in found)


def test_the_oldest_are_those_that_have_waited_longest(videos):
    rows = videos({"a young one": 9, "the old": 1, "twin b": 5, "twin a": 5})
    assert [row["video_id"] for row in oldest(rows, 3).collect()] == ["the old", "twin a", "twin b"]


def test_a_split_is_one_stage_of_one_task_or_everything(videos, spark):
    splits = spark.createDataFrame(
        [("a", "t", "test"), ("b", "t", "align"), ("c", "u", "test")], "video_id string, task string, split string"
    )
    rows = videos({"a": 1, "b": 2, "c": 3})
    assert ids(in_split(rows, splits, "t", "test")) == ["a"]
    assert ids(in_split(rows, splits, "t", None)) == ["a", "b", "c"]


def test_the_scope_of_a_stage_comes_from_the_lake(run, spark):
    catalog.create_all(run.lake.root)
    seen = [{"video_id": name, "uri": f"/{name}", "ingested_at": BEGAN, "ingested_on": BEGAN.date()} for name in "abc"]
    given = [
        {"video_id": name, "task": task, "split": split, "assigned_at": BEGAN}
        for name, task, split in (("a", "handwriting", "test"), ("b", "handwriting", "align"), ("c", "other", "test"))
    ]
    for table, rows in ((VIDEOS, seen), (SPLITS, given)):
        commit.note_once(table, run.lake.root, rows, "tests", "tests.w00000")
    assert ids(of_split(run, "test").videos) == ["a"]
    assert of_split(run, None).count == 3 and of_split(run, "calibrate").count == 0


def test_what_was_said_of_videos_was_said_since_they_came(spark, run):
    rows = spark.createDataFrame([(n, datetime(2026, 3, n, 12, tzinfo=UTC)) for n in (1, 2, 3)], "n long, at timestamp")
    some = Scope(spark.createDataFrame([], "video_id string"), 1, (date(2026, 3, 2), date(2026, 3, 9)))
    assert [row["n"] for row in some.since(rows, "at").collect()] == [2, 3]
    assert Scope(some.videos, 0, ()).since(rows, "at").collect() == []

"""Lessons as a stage gets them: the rows that Delta has now, none that it has deleted; all that Spark wrote, or an error.
They are what the stage may learn from, or nothing is learned."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql.pandas.types import from_arrow_schema
from support import Lake
from synthetic import NOW, land, video_id

from jobs.runtime.errors import Doubted
from jobs.runtime.run import Run
from jobs.steps import training
from lake import parquet
from lake.storage import StoreError
from models.training.lessons import COLUMNS
from models.training.reading import everything, open_reader

ROWS = 40


@pytest.fixture(scope="module")
def table(spark, tmp_path_factory):
    """Forty rows, of which two were deleted by a deletion vector: they are still in the Parquet files."""
    folder = tmp_path_factory.mktemp("deleted") / "table"
    spark.range(ROWS, numPartitions=1).selectExpr(
        "format_string('%03d', id) video_id",
        "concat('/', id) uri",
        "string(null) said",
        "concat('text ', id) text",
        "array('a') labels",
    ).write.format("delta").option("delta.enableDeletionVectors", "true").save(str(folder))
    spark.sql(f"DELETE FROM delta.`{folder}` WHERE video_id IN ('007', '023')")
    log = "".join(path.read_text() for path in sorted((folder / "_delta_log").glob("*.json")))
    assert any((json.loads(line).get("add") or {}).get("deletionVector") for line in log.splitlines())
    assert sum(pq.read_metadata(path).num_rows for path in Path(folder).glob("*.parquet")) == ROWS
    return spark.read.format("delta").load(str(folder))


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory):
    """Videos in splits of the task handwriting."""
    made = Lake(tmp_path_factory.mktemp("lessons") / "lake", "training.reader=petastorm")
    stages = dict.fromkeys("abcdefg", "refine") | dict.fromkeys("tuv", "align") | {"z": "test"}
    given = [
        {"video_id": video_id(name), "split": stage, "task": "handwriting", "assigned_at": NOW}
        for name, stage in stages.items()
    ]
    land(made, splits=given)
    return made


@pytest.fixture
def run(lake):
    run = Run("tests", lake.settings(), quiet=True)
    yield run
    run.drop_scratch()


def test_rows_that_a_deletion_vector_took_are_no_lessons(run, table, tmp_path):
    made = training.lessons(run, tmp_path, table)
    expected = [f"{n:03}" for n in range(ROWS) if n not in (7, 23)]
    for kind in ("arrow", "petastorm"):
        assert list(everything(open_reader(kind, made.path)).ids()) == expected


def test_a_row_that_does_not_come_back_is_an_error(run, table, tmp_path, monkeypatch):
    def batches(folder, columns, read=parquet.batches):
        for part in read(folder, columns):
            yield part.slice(1)

    monkeypatch.setattr(parquet, "batches", batches)
    with pytest.raises(StoreError, match="expected the 38 lessons that Spark wrote, found 37"):
        training.lessons(run, tmp_path, table)


def checked(run, folder: Path, stage: str, *lessons: tuple) -> dict[str, int]:
    """lessons: a name, a label and a text each; the counts of the run."""
    rows = [
        (video_id(name), f"/{name}", None, text, None if label is None else [label]) for name, label, text in lessons
    ]
    frame = run.lake.spark.createDataFrame(rows, from_arrow_schema(COLUMNS))
    training.check_lessons(run, stage, training.lessons(run, folder, frame))
    return run.record.counts


def test_lessons_of_its_own_split_are_counted_by_label(run, tmp_path, capsys):
    counts = checked(run, tmp_path, "refine", ("a", "rising", None), ("b", "falling", None), ("c", "falling", None))
    assert {name: counts[f"lessons_{name}"] for name in run.labels} == {"rising": 1, "falling": 2, "mixed": 0}
    assert "WARNING: refine: no lesson of mixed" in capsys.readouterr().err


def test_a_teacher_may_say_the_same_twice_and_speak_of_what_nobody_labelled(run, tmp_path):
    said = [("t", None, "x"), ("t", None, "x"), ("u", "rising", "x"), ("v", "falling", "x")]
    assert checked(run, tmp_path, "align", *said)["lessons_mixed"] == 0


def test_what_is_not_to_be_learned_from_is_told_by_reason_and_id(run, tmp_path):
    """Given videos of a test, of another stage, of none, twice, without a label and with one of another task among good
    ones, then refine learns from none of all."""
    good = [("a", "rising", None), ("b", "falling", None)]
    bad = [("z", "rising", None), ("t", "rising", None), ("nowhere", "rising", None), ("d", "rising", None)]
    bad += [("d", "rising", None), ("e", None, None), ("f", "of another task", None)]
    with pytest.raises(Doubted) as told:
        checked(run, tmp_path, "refine", *good, *bad)
    said = str(told.value)
    assert "refine: 6 of 9 rows break the contract of what it learns from (2 split_is_known, " in said
    for reason in ("split_is_given", "key_twice", "labels_is_given", "labels_are_known"):
        assert f"1 {reason}" in said
    assert any(f"{video_id(name)} (" in said for name in ("z", "t")) and ", ...; nothing was learned" in said


def test_a_lesson_without_a_word_is_told_too(run, tmp_path):
    with pytest.raises(Doubted, match=r"align: 2 of 4 rows break .* \(2 text_is_given\): "):
        checked(
            run, tmp_path, "align", ("t", "mixed", "x"), ("v", "rising", "x"), ("u", "rising", ""), ("u", "mixed", None)
        )


def test_one_label_alone_teaches_nothing(run, tmp_path):
    with pytest.raises(Doubted, match=r"refine: expected lessons of several labels, found rising alone \(2\)"):
        checked(run, tmp_path, "refine", ("a", "rising", None), ("b", "rising", None))

"""Lessons as a stage gets them: the rows that Delta has now, none that it has deleted; all that Spark wrote, or an error."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.runtime.run import Run
from jobs.steps import training
from lake import parquet
from lake.storage import StoreError
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


@pytest.fixture
def run(lake):
    run = Run("tests", lake.settings("training.reader=petastorm"), quiet=True)
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

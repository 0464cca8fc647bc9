"""Tables: made once, described everywhere, read alike by every engine."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pyarrow.compute as pc
import pytest
from things import DAY, THINGS, land, staged, wave

import lake.table
from lake.catalog import create_all
from lake.table import LakeError, check_version, create, open_table, read, read_files
from schemas.label_set import LabelSet
from schemas.tables import TABLES


@pytest.fixture
def root(tmp_path):
    create(THINGS, str(tmp_path))
    return str(tmp_path)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_and_column_is_described(table):
    assert table.grain.strip() and re.fullmatch("[a-z_]+", table.name)
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)
    assert set(table.key) | set(table.partition_by) <= set(names)
    assert all(len(column.comment.strip()) >= 3 for column in table.columns)
    for mode in ("exclusive", "independent"):
        checks = [check.name for check in table.contract(LabelSet(("a", "b"), mode))]
        assert len(set(checks)) == len(checks) > 0


def test_descriptions_are_in_the_lake_for_other_engines(tmp_path):
    create_all(str(tmp_path))
    create_all(str(tmp_path))
    for table in TABLES:
        found = open_table(table, str(tmp_path))
        assert found.version() == 0
        assert found.metadata().description == table.grain
        assert tuple(found.metadata().partition_columns) == table.partition_by
        comments = {field.name: field.metadata["comment"] for field in found.schema().fields}
        assert comments == {column.name: column.comment for column in table.columns}
        assert found.metadata().configuration["delta.setTransactionRetentionDuration"] == "interval 30 days"


def test_a_table_made_by_several_threads_at_once_is_made_once(tmp_path):
    for turn in range(25):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _, turn=turn: create(THINGS, str(tmp_path / str(turn))), range(8)))
        assert open_table(THINGS, str(tmp_path / str(turn))).version() == 0


def test_a_table_of_another_schema_version_is_refused(root, monkeypatch):
    own = lake.table.SCHEMA_VERSION
    monkeypatch.setattr(lake.table, "SCHEMA_VERSION", "999")
    for look in (create, check_version):
        with pytest.raises(LakeError, match=rf"things: expected schema version 999, found {own}; .*lake\.root"):
            look(THINGS, root)


def test_a_table_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(LakeError, match="things: expected the table things, found none"):
        open_table(THINGS, str(tmp_path))


def test_marks_carry_their_time_so_that_both_implementations_keep_them(spark, root):
    land(root, wave("run"), "a")
    log = (lake.storage.local_path(root) / "tables/things/_delta_log/00000000000000000001.json").read_text()
    assert re.search(r'"txn":\{"appId":"run.w00001/things","version":2,"lastUpdated":1[0-9]{12}\}', log)
    # Spark's own view of the table's state, after a checkpoint of delta-rs.
    open_table(THINGS, root).create_checkpoint()
    log = spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, f"{root}/tables/things")
    marks = log.update(False, spark._jvm.scala.Option.empty(), spark._jvm.scala.Option.empty()).setTransactions()
    assert [marks.apply(n).appId() for n in range(marks.size())] == ["run.w00001/things"]


def test_other_engines_read_the_rows_and_skip_files_by_their_bounds(spark, root):
    import polars

    for number, ids in enumerate(("ab", "cd", "ef"), start=1):
        land(root, wave("run", number), *ids)
    uri = f"{root}/tables/things"
    frame = spark.read.format("delta").load(uri)
    assert sorted(row["id"] for row in frame.collect()) == list("abcdef")
    one = frame.where("id = 'c'")
    assert [row["id"] for row in one.collect()] == ["c"] and len(one.inputFiles()) == 1
    assert polars.scan_delta(uri).filter(polars.col("id") == "c").select("id", "day").collect().rows() == [("c", DAY)]
    dataset = open_table(THINGS, root).to_pyarrow_dataset()
    assert len(list(dataset.get_fragments(filter=pc.field("id") == "c"))) == 1


def test_staged_files_are_read_with_their_partitions(spark, root):
    (file,) = staged(root, wave("run"), "a", "b")
    assert read(spark, THINGS, root).count() == 0
    rows = read_files(spark, THINGS, root, [file.name]).collect()
    assert [(row["id"], row["day"]) for row in rows] == [("a", DAY), ("b", DAY)]
    assert read_files(spark, THINGS, root, []).count() == 0

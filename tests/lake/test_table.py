"""Tables: made once, described everywhere, and each key lands once whoever else writes."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from deltalake import DeltaTable
from schemas.contract import Contract, not_null
from schemas.lake import TABLES, create_all

import schemas.table
from schemas.columns import LONG, STRING, Column
from schemas.table import LakeError, Table, append_once, create, note_once, publish, read, transaction_version

THINGS = Table(
    name="things",
    grain="one thing",
    columns=(Column("id", STRING, "which"), Column("n", LONG, "how many"), Column("wave_id", STRING, "wave")),
    key=("id",),
    contract=lambda labels: Contract((not_null("id"),), ("id",)),
)


@pytest.fixture
def root(tmp_path):
    create(THINGS, str(tmp_path))
    return str(tmp_path)


def rows_of(root: str, table: Table = THINGS) -> list[dict]:
    """All rows, read by delta-rs."""
    return DeltaTable(table.path(root)).to_pyarrow_table().to_pylist()


def things(spark, *ids: str, wave: str = "w1"):
    return spark.createDataFrame([(name, index, wave) for index, name in enumerate(ids)], THINGS.spark_schema())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_and_column_is_described(table):
    assert table.grain.strip() and re.fullmatch("[a-z_]+", table.name)
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)
    assert set(table.key) | set(table.partition_by) | set(table.contract(("a", "b")).unique) <= set(names)
    assert all(len(column.comment.strip()) >= 3 for column in table.columns)
    assert table.contract(("a", "b")).unique == table.key


def test_descriptions_are_in_the_lake_for_other_engines(tmp_path):
    create_all(str(tmp_path))
    create_all(str(tmp_path))
    for table in TABLES:
        found = DeltaTable(table.path(str(tmp_path)))
        assert found.version() == 0
        assert found.metadata().description == table.grain
        assert tuple(found.metadata().partition_columns) == table.partition_by
        comments = {field.name: field.metadata["comment"] for field in found.schema().fields}
        assert comments == {column.name: column.comment for column in table.columns}


def test_a_table_made_by_several_threads_at_once_is_made_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: create(THINGS, str(tmp_path)), range(8)))
    assert DeltaTable(THINGS.path(str(tmp_path))).version() == 0


def test_a_table_of_another_schema_version_is_refused(root, monkeypatch):
    monkeypatch.setattr(schemas.table, "SCHEMA_VERSION", "2")
    with pytest.raises(LakeError, match=r"things: expected schema version 2, found 1; .*lake\.root"):
        create(THINGS, root)


def test_a_publish_lands_once_and_again_is_known(spark, root):
    rows = things(spark, "a", "b", "c")
    first, again = (publish(spark, THINGS, root, rows, "scope", 3) for _ in range(2))
    assert (first.rows, first.known, first.collisions) == (3, 0, 0)
    assert (again.rows, again.known, again.collisions) == (0, 3, 0)
    more = publish(spark, THINGS, root, things(spark, "c", "d"), "scope", 2)
    assert (more.rows, more.known) == (1, 1)
    assert sorted(row["id"] for row in rows_of(root)) == ["a", "b", "c", "d"]
    assert DeltaTable(THINGS.path(root)).version() == 2 == transaction_version(THINGS.path(root), "scope")


def test_a_rival_between_look_and_append_costs_a_collision_and_no_row(spark, root, monkeypatch):
    """The rival reads the same version, publishes a part of the same keys, and commits first."""
    look, rival = transaction_version, []

    def interrupted(path: str, scope: str) -> int:
        version = look(path, scope)
        if not rival:
            rival.append(True)
            rival.append(publish(spark, THINGS, root, things(spark, "b", "x", wave="rival"), "scope", 2))
        return version

    monkeypatch.setattr(schemas.table, "transaction_version", interrupted)
    mine = publish(spark, THINGS, root, things(spark, "a", "b", "c"), "scope", 3)
    assert (mine.rows, mine.known, mine.collisions) == (2, 1, 1)
    assert (rival[1].rows, rival[1].collisions) == (2, 0)
    assert Counter(row["id"] for row in rows_of(root)) == Counter(["a", "b", "c", "x"])
    assert {row["id"]: row["wave_id"] for row in rows_of(root)}["b"] == "rival"


def test_rows_known_to_be_missing_are_appended_without_reading_the_table(spark, root, monkeypatch):
    looked = []
    monkeypatch.setattr(schemas.table, "read", lambda *words: looked.append(words) or read(*words))
    first = publish(spark, THINGS, root, things(spark, "a"), "scope", 1, missing_at=0)
    second = publish(spark, THINGS, root, things(spark, "b"), "scope", 1, missing_at=1)
    assert (first.rows, second.rows, looked) == (1, 1, [])
    stale = publish(spark, THINGS, root, things(spark, "a", "c"), "scope", 2, missing_at=1)  # someone published since
    assert (stale.rows, stale.known, len(looked)) == (1, 1, 1)
    assert sorted(row["id"] for row in rows_of(root)) == ["a", "b", "c"]


def test_a_rival_makes_known_to_be_missing_untrue(spark, root, monkeypatch):
    look, rival = transaction_version, []

    def interrupted(path: str, scope: str) -> int:
        version = look(path, scope)
        if not rival:
            rival.append(True)
            publish(spark, THINGS, root, things(spark, "a", wave="rival"), "scope", 1, missing_at=0)
        return version

    monkeypatch.setattr(schemas.table, "transaction_version", interrupted)
    mine = publish(spark, THINGS, root, things(spark, "a", "b"), "scope", 2, missing_at=0)
    assert (mine.rows, mine.known, mine.collisions) == (1, 1, 1)
    assert sorted(row["id"] for row in rows_of(root)) == ["a", "b"]


def test_writers_of_other_scopes_do_not_collide(spark, root, monkeypatch):
    look, rival = transaction_version, []

    def interrupted(path: str, scope: str) -> int:
        version = look(path, scope)
        if not rival:
            rival.append(True)
            publish(spark, THINGS, root, things(spark, "x"), "another", 1)
        return version

    monkeypatch.setattr(schemas.table, "transaction_version", interrupted)
    mine = publish(spark, THINGS, root, things(spark, "a"), "scope", 1)
    assert (mine.rows, mine.collisions) == (1, 0)
    assert sorted(row["id"] for row in rows_of(root)) == ["a", "x"]


def test_two_threads_that_publish_the_same_rows_neither_lose_nor_double(spark, root):
    wanted = [f"k{number}" for number in range(20)]

    def work(wave: str):
        return publish(spark, THINGS, root, things(spark, *wanted, wave=wave), "scope", 20)

    with ThreadPoolExecutor(3) as pool:
        landed = list(pool.map(work, ("w1", "w2", "w3")))
    assert sorted((entry.rows, entry.known) for entry in landed) == [(0, 20), (0, 20), (20, 0)]
    assert Counter(row["id"] for row in rows_of(root)) == Counter(wanted)


def test_side_rows_are_appended_once_under_their_mark(spark, root):
    for _ in range(2):
        append_once(spark, THINGS, root, things(spark, "a"), "w1/side")
        note_once(THINGS, root, [{"id": "b", "n": 1}], "w2/side")
    note_once(THINGS, root, [{"id": "c"}], "w1/side")
    append_once(spark, THINGS, root, things(spark, "c"), "w2/side")
    append_once(spark, THINGS, root, things(spark, "a"), "w3/side")
    assert sorted((row["id"], row["n"]) for row in rows_of(root)) == [("a", 0), ("a", 0), ("b", 1)]
    assert {row["id"]: row["wave_id"] for row in rows_of(root)} == {"a": "w1", "b": None}


def test_side_rows_of_racing_writers_are_appended_once(spark, root):
    def work(number: int) -> None:
        if number % 2:
            append_once(spark, THINGS, root, things(spark, "a"), "w1/side")
        else:
            note_once(THINGS, root, [{"id": "a", "n": number}], "w1/side")
        note_once(THINGS, root, [{"id": f"own {number}"}], f"w{number}/own")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found = Counter(row["id"] for row in rows_of(root))
    assert found == Counter(["a", "own 0", "own 1", "own 2", "own 3"])


def test_a_failure_that_is_no_collision_is_raised(spark, root):
    wrong = spark.createDataFrame([("a", "not a number", "w")], "id string, n string, wave_id string")
    with pytest.raises(Exception, match=r"(?i)merge|type|cast"):
        publish(spark, THINGS, root, wrong, "scope", 1)
    assert read(spark, THINGS, root).count() == 0

"""Files of a table: one per partition, described so that engines may skip them and never skip too much."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from things import DAY, THINGS, staged, wave

from lake import storage, table
from lake.names import wave_of
from lake.parquet import PartWriter
from schemas.columns import DOUBLE, INT, STRING, TIMESTAMP, Column, mapping
from schemas.table import Table

WIDE = Table(
    name="wide",
    grain="one of each kind",
    columns=(
        Column("id", STRING, "which"),
        Column("n", INT, "how many"),
        Column("x", DOUBLE, "how much"),
        Column("at", TIMESTAMP, "when"),
        Column("text", STRING, "prose"),
        Column("of", mapping(STRING, DOUBLE), "by label"),
    ),
    key=("id",),
    contract=lambda labels: (),
)


def write(root: str, wanted: Table, *rows: dict) -> list:
    with PartWriter(wanted, root, wave("run")) as parts:
        for row in rows:
            parts.write(pa.Table.from_pylist([row], table.arrow_schema(wanted)))
        return parts.close()


def row(name: str, **changed) -> dict:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    return {"id": name, "n": 1, "x": 0.5, "at": at, "text": "words", "of": [("a", 0.5)]} | changed


def test_bounds_are_of_what_names_a_row_and_of_numbers_and_times(tmp_path):
    (file,) = write(str(tmp_path), WIDE, row("b", n=7), row("a", n=None), row("c", n=-2))
    stats = json.loads(file.stats)
    assert file.rows == 3 == stats["numRecords"] and file.size == (tmp_path / "tables/wide" / file.name).stat().st_size
    assert stats["minValues"] == {"id": "a", "n": -2, "at": "2026-01-02T03:04:05.678Z"}
    assert stats["maxValues"] == {"id": "c", "n": 7, "at": "2026-01-02T03:04:05.679Z"}  # outwards, to milliseconds
    assert stats["nullCount"] == {"id": 0, "n": 1, "at": 0}


def test_a_bound_that_would_be_wrong_or_endless_is_left_out(tmp_path):
    (file,) = write(str(tmp_path), WIDE, row("a", x=math.nan), row("z" * 5000, n=None, at=None), row("b", n=None))
    stats = json.loads(file.stats)
    assert set(stats["minValues"]) == set(stats["maxValues"]) == {"n", "at"}
    (empty,) = write(str(tmp_path), WIDE, row("a", n=None, at=None))
    assert set(json.loads(empty.stats)["minValues"]) == {"id"}


def test_rows_go_to_the_folder_of_their_partition(tmp_path):
    days = [DAY, date(2026, 1, 3), DAY]
    rows = [{"id": str(n), "n": n, "wave_id": "w", "day": day} for n, day in enumerate(days)]
    files = {file.partition["day"]: file for file in write(str(tmp_path), THINGS, *rows)}
    assert {day: file.rows for day, file in files.items()} == {"2026-01-02": 2, "2026-01-03": 1}
    for day, file in files.items():
        assert file.name.startswith(f"day={day}/{wave('run')}-")
        found = pq.read_table(tmp_path / "tables/things" / file.name, partitioning=None)
        assert found.column_names == ["id", "n", "wave_id"]  # the partition stands in the log, not in the file


def test_a_partition_that_cannot_be_a_folder_is_refused(tmp_path):
    by_id = replace(THINGS, partition_by=("id",))
    with pytest.raises(ValueError, match="expected partition values of letters"):
        write(str(tmp_path), by_id, {"id": "a/b", "n": 1, "wave_id": "w", "day": DAY})
    assert [path for path in (tmp_path / "tables").rglob("*") if path.is_file()] == []


def test_what_an_error_cuts_short_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), PartWriter(THINGS, str(tmp_path), wave("run")) as parts:
        parts.write(pa.Table.from_pylist([{"id": "a", "day": DAY}], table.arrow_schema(THINGS)))
        raise RuntimeError
    assert [path for path in (tmp_path / "tables").rglob("*") if path.is_file()] == []


def test_a_file_tells_its_wave(anywhere):
    (file,) = staged(anywhere, wave("rollout-20260102T030405-0a1b2c", 7), "a")
    assert wave_of(file.name) == "rollout-20260102T030405-0a1b2c.w00007"
    aside = storage.scratch(storage.join("/tmp/x", file.name))
    assert wave_of(aside.name) == wave_of(file.name)  # also while it is written
    assert wave_of("day=2026-01-02/part-00000-5c324542-1d10-4207-86d8-3677fd291a22-c000.zstd.parquet") is None

"""A table for tests: things, kept by day; and ways to put rows into its files without Spark."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
from deltalake import DeltaTable

from lake import table
from lake.commit import Landed, append
from lake.log import all_files
from lake.names import wave_of
from lake.parquet import DataFile, PartWriter
from schemas.checks import not_null
from schemas.columns import DATE, LONG, STRING, Column
from schemas.table import Table

DAY = date(2026, 1, 2)
THINGS = Table(
    name="things",
    grain="one thing",
    columns=(
        Column("id", STRING, "which"),
        Column("n", LONG, "how many"),
        Column("wave_id", STRING, "wave"),
        Column("day", DATE, "when"),
    ),
    key=("id",),
    contract=lambda labels: (not_null("id"),),
    partition_by=("day",),
)


def wave(run: str, number: int = 1) -> str:
    return f"{run}.w{number:05d}"


def staged(root: str, wave_id: str, *ids: str, day: date = DAY) -> list[DataFile]:
    """One file with these ids in the table's folder, not committed."""
    rows = [{"id": name, "n": place, "wave_id": wave_id, "day": day} for place, name in enumerate(ids)]
    with PartWriter(THINGS, root, wave_id) as parts:
        parts.write(pa.Table.from_pylist(rows, table.arrow_schema(THINGS)))
        return parts.close()


def land(root: str, wave_id: str, *ids: str, day: date = DAY, missing_at: int | None = None) -> Landed:
    files = staged(root, wave_id, *ids, day=day)
    return append(THINGS, root, files, f"{wave_id}/things", wave_id, missing_at)


def rows_of(root: str, wanted: Table = THINGS) -> list[dict]:
    """All rows, read by delta-rs."""
    uri = table.path(wanted, root)
    return DeltaTable(uri, storage_options=table.store_options(uri)).to_pyarrow_table().to_pylist()


def files_of(wanted: Table, root: str, wave_id: str) -> list[str]:
    """Names of the files that a wave has in the table."""
    return [name for name, _ in all_files(table.open_table(wanted, root)) if wave_of(name) == wave_id]


def ids_of(root: str) -> list[str]:
    return sorted(row["id"] for row in rows_of(root))

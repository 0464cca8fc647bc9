"""Rows as Parquet files in a table's folder, with the statistics that a commit carries. No reader sees them before it.

A file's name tells the wave that wrote it, so that what a killed run left can be told from what a living one needs.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from lake import storage
from lake.table import arrow_schema, path
from schemas.table import Table

_ROW_GROUP_BYTES = 32 << 20
_LONGEST_STATISTIC = 1024  # characters
_FOLDER = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a table: name relative to the table's folder, bytes, rows, and what a commit says of it.

    partition: value by partition column, as Delta writes it. stats: JSON as Delta's protocol has it.
    """

    name: str
    size: int
    rows: int
    partition: dict[str, str]
    stats: str


class PartWriter:
    """Writes rows of one table, one file per partition. Close it for the files; leave it by an error and none is there."""

    def __init__(self, table: Table, root: str, wave_id: str) -> None:
        self._table, self._folder, self._wave_id = table, path(table, root), wave_id
        self._schema = arrow_schema(table)
        self._parts: dict[tuple[str, ...], _Part] = {}

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for part in self._parts.values():
            part.drop()

    def write(self, rows: pa.Table) -> None:
        """Rows with all columns of the table. Raises StoreError, ValueError for a partition that cannot be a folder."""
        rows = rows.select(self._schema.names).cast(self._schema)
        for values, own in _by_partition(rows, self._table.partition_by):
            if values not in self._parts:
                self._parts[values] = self._part(values)
            self._parts[values].write(own)

    def close(self) -> list[DataFile]:
        """Finish the files and put them into the table's folder."""
        written = [part.close(self._folder) for part in self._parts.values()]
        self._parts.clear()
        return written

    def _part(self, values: tuple[str, ...]) -> _Part:
        partition = dict(zip(self._table.partition_by, values, strict=True))
        if odd := [value for value in values if not _FOLDER.fullmatch(value)]:
            raise ValueError(f"{self._table.name}: expected partition values of letters, digits, . _ -, found {odd}")
        folders = [f"{name}={value}" for name, value in partition.items()]
        name = "/".join([*folders, f"{self._wave_id}-{secrets.token_hex(8)}.parquet"])
        inside = pa.schema([field for field in self._schema if field.name not in partition])
        return _Part(self._table, name, partition, inside, storage.scratch(storage.join(self._folder, name)))


class _Part:
    """One file while it is written."""

    def __init__(self, table: Table, name: str, partition: dict[str, str], schema: pa.Schema, local: Path) -> None:
        self._table, self._name, self._partition, self._schema, self._local = table, name, partition, schema, local
        self._held: list[pa.Table] = []
        self._bytes = self._rows = 0
        with storage.doing("written", str(local)):
            self._writer = pq.ParquetWriter(local, schema, compression="zstd")

    def write(self, rows: pa.Table) -> None:
        self._held.append(rows.select(self._schema.names))
        self._bytes += rows.nbytes
        self._rows += rows.num_rows
        if self._bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        with storage.doing("written", str(self._local)):
            self._writer.write_table(pa.concat_tables(self._held))
        self._held, self._bytes = [], 0

    def close(self, folder: str) -> DataFile:
        if self._held:
            self._flush()
        with storage.doing("written", str(self._local)):
            self._writer.close()
        stats = statistics(self._table, pq.read_metadata(self._local))
        size = self._local.stat().st_size
        storage.put(self._local, storage.join(folder, self._name))
        return DataFile(self._name, size, self._rows, self._partition, json.dumps(stats))

    def drop(self) -> None:
        self._local.unlink(missing_ok=True)


def _by_partition(rows: pa.Table, columns: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], pa.Table]]:
    """The rows of each partition, with its values as text."""
    if not columns:
        yield (), rows
        return
    for values in rows.select(columns).group_by(columns).aggregate([]).to_pylist():
        mask = None
        for name in columns:
            same = pc.equal(rows[name], pa.scalar(values[name], rows.schema.field(name).type))
            mask = same if mask is None else pc.and_(mask, same)
        yield tuple(_text(values[name]) for name in columns), rows.filter(mask)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def statistics(table: Table, footer: pq.FileMetaData) -> dict[str, Any]:
    """What Delta keeps of a file for skipping it: rows, and least and greatest value and NULLs of a column.

    Of texts only those that name a row (key, wave_id): the bounds of prose are long and skip nothing. Of doubles none, since
    a bound that leaves out NaN would be wrong.
    """
    telling = (pa.types.is_integer, pa.types.is_timestamp, pa.types.is_date)
    names = {
        field.name
        for field in arrow_schema(table)
        if field.name in (*table.key, "wave_id") or any(test(field.type) for test in telling)
    }
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    unknown: set[str] = set()
    for group in range(footer.num_row_groups):
        for place in range(footer.num_columns):
            column = footer.row_group(group).column(place)
            name, found = column.path_in_schema, column.statistics
            if name not in names or found is None:
                continue
            nulls[name] = nulls.get(name, 0) + (found.null_count or 0)
            if not found.has_min_max:
                if found.num_values:  # too long for a footer
                    unknown.add(name)
                continue
            least[name] = min(found.min, least.get(name, found.min))
            greatest[name] = max(found.max, greatest.get(name, found.max))
    known = [n for n in least if n not in unknown and len(str(greatest[n])) <= _LONGEST_STATISTIC]
    return {
        "numRecords": footer.num_rows,
        "minValues": {name: _bound(least[name], up=False) for name in known},
        "maxValues": {name: _bound(greatest[name], up=True) for name in known},
        "nullCount": nulls,
    }


def _bound(value: Any, up: bool) -> Any:
    """A value as JSON; times go to whole milliseconds, outwards, for that is all that Delta keeps of them."""
    if isinstance(value, datetime):
        rest = timedelta(microseconds=value.microsecond % 1000)
        value = value - rest + (timedelta(milliseconds=1) if up and rest else timedelta(0))
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


def dataset(store: pafs.FileSystem, names: Sequence[str]) -> ds.Dataset:
    """Some Parquet files of a table's folder, with the columns that are inside them."""
    return ds.dataset(list(names), format="parquet", filesystem=store, partitioning=None)


def with_partition(table: Table, rows: pa.Table, partition: dict[str, str]) -> pa.Table:
    """Rows of one file with the columns that only the name of its folder tells."""
    schema = arrow_schema(table)
    for name, value in partition.items():
        constant = pa.scalar(value).cast(schema.field(name).type)
        rows = rows.append_column(name, pa.repeat(constant, rows.num_rows))
    return rows


def batches(folder: str, columns: list[str], **equal: Any) -> Iterator[pa.Table]:
    """Stream a folder of Parquet files, a file at a time: some columns of the rows whose other columns equal these."""
    filters = [(name, "==", value) for name, value in equal.items()] or None
    for name in storage.children(folder):
        if name.endswith(".parquet"):
            data = pa.BufferReader(storage.read_bytes(storage.join(folder, name)))
            rows = pq.read_table(data, columns=columns, filters=filters)
            if rows.num_rows:
                yield rows

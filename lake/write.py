"""A stage's rows on their way into staged files: the plan runs once, the bytes are written once, where they stay."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import ArrayType, DataType, MapType

from lake import storage
from lake.parquet import DataFile, PartWriter
from lake.staging import Staged, Wave
from lake.table import arrow_schema, spark_schema
from schemas.quarantine import QUARANTINE
from schemas.table import Table

REFUSED = ("refused_key", "refused_reason", "refused_message")  # columns by which a stage refuses a row
_FILES = pa.schema([("table", pa.string()), ("file", pa.string()), ("reasons", pa.string()), ("failure", pa.string())])
_BYTES_TOGETHER = 4 << 20  # rows that are handled together: Spark hands over a few at a time


def stage(
    wave: Wave, table: Table, rows: DataFrame, missing_at: int | None = None, refused_at: int | None = None
) -> Staged:
    """Run the plan behind `rows` exactly once; what comes out of it goes from the tasks straight into Parquet files.

    rows: the table's columns but for wave_id (those it lacks are NULL), and those of REFUSED where the stage refuses some.
    missing_at, refused_at: see Staged.
    A task that is tried again leaves its first files behind: only files that a task named at its end count.
    Raises storage.StoreError where a task could not write.
    """
    ready = _with_all_columns(rows.withColumn("wave_id", F.lit(wave.id)), table)
    described = ready.mapInArrow(_writing(table, wave.root, wave.id), from_arrow_schema(_FILES)).collect()
    if failures := [row["failure"] for row in described if row["failure"]]:
        raise storage.StoreError(failures[0])
    files: dict[str, list[DataFile]] = {table.name: [], QUARANTINE.name: []}
    reasons: dict[str, int] = {}
    for row in described:
        if row["file"]:
            files[row["table"]].append(DataFile(**json.loads(row["file"])))
        for reason, count in json.loads(row["reasons"] or "{}").items():
            reasons[reason] = reasons.get(reason, 0) + count
    refused = tuple(files[QUARANTINE.name])
    return Staged(table.name, tuple(files[table.name]), refused, reasons, missing_at, refused_at)


def _with_all_columns(rows: DataFrame, table: Table) -> DataFrame:
    """The table's columns in their types, then those of REFUSED. A row without a partition is refused as its check would."""
    refused = {name: F.col(name) if name in rows.columns else F.lit(None).cast("string") for name in REFUSED}
    for column in table.partition_by:
        lost = F.col(column).isNull() & refused["refused_reason"].isNull()
        refused["refused_message"] = F.when(lost, F.lit(f"{column} is missing")).otherwise(refused["refused_message"])
        refused["refused_reason"] = F.when(lost, F.lit(f"{column}_is_given")).otherwise(refused["refused_reason"])
    own = [
        (F.col(f"`{c.name}`") if c.name in rows.columns else F.lit(None)).cast(_loose(c.dataType)).alias(c.name)
        for c in spark_schema(table)
    ]
    return rows.select(*own, *[value.alias(name) for name, value in refused.items()])


def _loose(kind: DataType) -> DataType:
    """The type with NULLs allowed inside, for Spark casts none of them away; the writer is strict."""
    if isinstance(kind, ArrayType):
        return ArrayType(_loose(kind.elementType), True)
    return MapType(_loose(kind.keyType), _loose(kind.valueType), True) if isinstance(kind, MapType) else kind


def _writing(table: Table, root: str, wave_id: str) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: rows in, one row per file out (and one that counts refusals, or tells why writing failed)."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        reasons: dict[str, int] = {}
        told: list[dict[str, str | None]] = []
        with PartWriter(table, root, wave_id) as good, PartWriter(QUARANTINE, root, wave_id) as bad:
            try:
                for rows in _gathered(batches):
                    refused = rows.filter(pc.is_valid(rows["refused_reason"]))
                    good.write(rows.filter(pc.is_null(rows["refused_reason"])))
                    if refused.num_rows:
                        bad.write(quarantined(refused, table, wave_id))
                    for reason in refused["refused_reason"].to_pylist():
                        reasons[reason] = reasons.get(reason, 0) + 1
                for name, files in ((table.name, good.close()), (QUARANTINE.name, bad.close())):
                    told += [{"table": name, "file": json.dumps(asdict(file))} for file in files]
                told.append({"reasons": json.dumps(reasons)})
            except storage.StoreError as error:  # told, not raised: an error of a task arrives as pages of text
                told = [{"failure": str(error)}]
        yield pa.RecordBatch.from_pylist(told, _FILES)

    return run


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows in larger pieces."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(piece.nbytes for piece in held) >= _BYTES_TOGETHER:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def quarantined(refused: pa.Table, table: Table, wave_id: str) -> pa.Table:
    """Refused rows as rows of the table quarantine, with all their values as JSON."""
    now, rows = datetime.now(UTC), []
    for row in refused.to_pylist():
        key, reason, message = (row.pop(name) for name in REFUSED)
        own = "/".join("?" if row[name] is None else str(_plain(row[name])) for name in table.key)
        rows.append(
            {
                "row_key": key or own,
                "wave_id": wave_id,
                "table": table.name,
                "reason": reason,
                "message": message,
                "original": json.dumps(_jsonable(row), ensure_ascii=False),
                "refused_at": now,
            }
        )
    return pa.Table.from_pylist(rows, arrow_schema(QUARANTINE))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        pairs = value and all(isinstance(item, tuple) and len(item) == 2 for item in value)  # Arrow's form of a map
        return {str(k): _jsonable(v) for k, v in value} if pairs else [_jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else _plain(value)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (datetime, date)) else value

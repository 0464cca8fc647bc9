"""Create, read and publish a table. Publishing is a compare-and-set: each key lands once, whoever else writes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, Schema, Transaction, write_deltalake
from deltalake import DeltaTable as DeltaFile
from deltalake.exceptions import CommitFailedError, DeltaError
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from schemas.columns import Column
from schemas.contract import Contract

SCHEMA_VERSION = "1"
VERSION_PROPERTY = "deepintuit.schemaVersion"
# What Delta calls it when somebody else committed first. Nothing was written then, so trying again is safe.
_COLLISIONS = ("DELTA_CONCURRENT", "DELTA_PROTOCOL_CHANGED", "DELTA_METADATA_CHANGED")


# Side rows leave one transaction mark a wave in the log; after a month nobody can replay that wave any more.
SIDE_TABLE = (("delta.setTransactionRetentionDuration", "interval 30 days"),)


class LakeError(RuntimeError):
    """The lake is not one that this version can work with."""


@dataclass(frozen=True)
class Table:
    """One table: what a row is, its columns, its key, how it is cut into folders, and what good rows satisfy."""

    name: str
    grain: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    contract: Callable[[tuple[str, ...]], Contract]  # of the task's label slugs
    partition_by: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()

    def json(self) -> dict[str, Any]:
        return {"type": "struct", "fields": [column.json() for column in self.columns]}

    def spark_schema(self) -> StructType:
        return StructType.fromJson(self.json())

    def path(self, root: str) -> str:
        return f"{root.rstrip('/')}/tables/{self.name}"


@dataclass(frozen=True)
class Landed:
    """What a publish did: rows appended, rows that were there already, times another writer came first."""

    rows: int
    known: int
    collisions: int


def exists(table: Table, root: str) -> bool:
    return DeltaFile.is_deltatable(table.path(root))


def create(table: Table, root: str) -> None:
    """Make the table if it is not there; safe against others doing the same. Raises LakeError on another version."""
    path = table.path(root)
    if not DeltaFile.is_deltatable(path):
        configuration = {VERSION_PROPERTY: SCHEMA_VERSION, **dict(table.properties)}
        try:
            DeltaFile.create(
                path,
                schema=Schema.from_json(json.dumps(table.json())),
                mode="ignore",
                partition_by=list(table.partition_by) or None,
                configuration=configuration,
                description=table.grain,
                raise_if_key_not_exists=False,
            )
        except (CommitFailedError, DeltaError):
            if not DeltaFile.is_deltatable(path):
                raise
    found = DeltaFile(path).metadata().configuration.get(VERSION_PROPERTY)
    if found != SCHEMA_VERSION:
        raise LakeError(
            f"{path}: expected schema version {SCHEMA_VERSION}, found {found}; "
            f"use the release that wrote this lake, or point lake.root at another folder"
        )


def read(spark: SparkSession, table: Table, root: str) -> DataFrame:
    """All rows as of now."""
    return spark.read.format("delta").load(table.path(root))


def publish(
    spark: SparkSession,
    table: Table,
    root: str,
    rows: DataFrame,
    scope: str,
    planned: int,
    missing_at: int | None = None,
) -> Landed:
    """Append the rows whose keys the table does not have yet, exactly once against any other writer of this scope.

    scope: name of the compare-and-set's counter; writers that could write the same keys must share it.
    planned: number of rows in `rows`. missing_at: the scope's version at which none of the keys was there; while it has not
    moved the table need not be read, so that a wave costs the same however many there were before it.
    The order matters: the scope's version first, then which keys are there, then the append that carries version + 1, then
    a look whether it landed.
    """
    path = table.path(root)
    collisions = 0
    while True:
        version = transaction_version(path, scope)
        fresh, count = rows, planned
        if version != missing_at:
            there = read(spark, table, root).select(*table.key)
            fresh = rows.join(there, list(table.key), "left_anti")
            count = fresh.count()
        if count == 0:
            return Landed(0, planned, collisions)
        if _append(spark, table, root, fresh, scope, version + 1):
            return Landed(count, planned - count, collisions)
        collisions += 1


def append_once(spark: SparkSession, table: Table, root: str, rows: DataFrame, mark: str) -> None:
    """Append a DataFrame of side rows under a mark (a wave's id ...) that no two different sets of rows share.

    Doing it again, after a crash or from another process, changes nothing.
    """
    path = table.path(root)
    while transaction_version(path, mark) == 0:
        _append(spark, table, root, rows, mark, 1)


def note_once(table: Table, root: str, rows: list[dict[str, Any]], mark: str) -> None:
    """`append_once` for a few rows at hand: milliseconds, and needs no Spark. A column that a row lacks is NULL.

    delta-rs notes transaction versions without enforcing them. So the commit may only follow the very snapshot in which
    the mark was missing: without retries it fails if anybody came in between, and then we look again.
    """
    schema = pa.schema(Schema.from_json(json.dumps(table.json())))
    data = pa.Table.from_pylist([{c.name: row.get(c.name) for c in table.columns} for row in rows], schema)
    while True:
        snapshot = DeltaFile(table.path(root))
        if snapshot.transaction_version(mark):
            return
        properties = CommitProperties(app_transactions=[Transaction(mark, 1)], max_commit_retries=0)
        try:
            write_deltalake(snapshot, data, mode="append", commit_properties=properties)
        except CommitFailedError:
            continue


def transaction_version(path: str, scope: str) -> int:
    """The last version committed under this scope; 0 if none."""
    return DeltaFile(path).transaction_version(scope) or 0


def _append(spark: SparkSession, table: Table, root: str, rows: DataFrame, scope: str, version: int) -> bool:
    """One commit attempt; whether it landed. Delta skips a version already seen without a word, hence the mark."""
    mark = uuid.uuid4().hex
    writer = rows.select(*[column.name for column in table.columns]).write.format("delta").mode("append")
    writer = writer.option("txnAppId", scope).option("txnVersion", version).option("userMetadata", mark)
    try:
        writer.save(table.path(root))
    except (PySparkException, Py4JJavaError) as error:  # PySpark does not know Delta's own exceptions
        if any(name in str(error) for name in _COLLISIONS):
            return False
        raise
    return _landed(table.path(root), mark)


def _landed(path: str, mark: str) -> bool:
    history = DeltaFile(path).history(50)
    return any(entry.get("userMetadata") == mark for entry in history)

"""A table in its store: where it lies, how it is made, how it is read. Rows get in by `commit.py` alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from lake import storage
from schemas.table import Table

SCHEMA_VERSION = "8"
VERSION_PROPERTY = "deepintuit.schemaVersion"
_PROPERTIES = {
    VERSION_PROPERTY: SCHEMA_VERSION,
    # Whoever opens a table reads what came after its last checkpoint, file by file.
    "delta.checkpointInterval": "10",
    # Every wave leaves its mark in the log; after a month nobody can settle that wave any more.
    "delta.setTransactionRetentionDuration": "interval 30 days",
}


class LakeError(RuntimeError):
    """The lake is not one that this version can work with."""


def path(table: Table, root: str) -> str:
    """URI of the table's folder."""
    return storage.join(root, "tables", table.name)


def delta_schema(table: Table) -> Schema:
    return Schema.from_json(json.dumps(table.json()))


def arrow_schema(table: Table) -> pa.Schema:
    return pa.schema(delta_schema(table))


def spark_schema(table: Table) -> StructType:
    return StructType.fromJson(table.json())


def store_options(uri: str) -> dict[str, str]:
    """What delta-rs has to be told beside the AWS_* variables of the environment."""
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"allow_http": "true"} if plain and storage.local_path(uri) is None else {}


def file_system(table: Table, root: str) -> pafs.FileSystem:
    """The table's folder as a file system for pyarrow."""
    return pafs.PyFileSystem(DeltaStorageHandler(path(table, root), store_options(path(table, root))))


def exists(table: Table, root: str) -> bool:
    uri = path(table, root)
    return DeltaTable.is_deltatable(uri, store_options(uri))


def open_table(table: Table, root: str) -> DeltaTable:
    """The newest snapshot of the table. Raises LakeError where there is no such table."""
    uri = path(table, root)
    try:
        return DeltaTable(uri, storage_options=store_options(uri))
    except TableNotFoundError:
        raise LakeError(f"{uri}: expected the table {table.name}, found none; is lake.root right?") from None


def create(table: Table, root: str) -> None:
    """Make the table if it is not there; safe against others doing the same.

    Raises LakeError on another version, StoreError where the store does not take it.
    """
    if not exists(table, root):
        uri = path(table, root)
        try:
            DeltaTable.create(
                uri,
                schema=delta_schema(table),
                mode="ignore",
                partition_by=list(table.partition_by) or None,
                configuration=_PROPERTIES,
                description=table.grain,
                storage_options=store_options(uri),
                # Trying again after somebody else's first commit would make the table a second time, as version 1.
                commit_properties=CommitProperties(max_commit_retries=0),
                raise_if_key_not_exists=False,
            )
        except (CommitFailedError, DeltaError, OSError) as error:
            if not exists(table, root):
                raise storage.StoreError(f"{uri}: cannot be made: {storage.cause(error)}") from error
    check_version(table, root)


def check_version(table: Table, root: str) -> None:
    """Raises LakeError where the table is missing or was made by another schema version."""
    found = open_table(table, root).metadata().configuration.get(VERSION_PROPERTY)
    if found != SCHEMA_VERSION:
        raise other_version(path(table, root), found)


def other_version(where: str, found: str | None) -> LakeError:
    return LakeError(
        f"{where}: expected schema version {SCHEMA_VERSION}, found {found}; use the release that wrote this lake, or point "
        "lake.root at another folder"
    )


def read(spark: SparkSession, table: Table, root: str) -> DataFrame:
    """All rows as of now."""
    return spark.read.format("delta").load(path(table, root))


def read_files(spark: SparkSession, table: Table, root: str, names: Iterable[str]) -> DataFrame:
    """The rows of some Parquet files in the table's folder, published or not; names are relative to it."""
    folder = path(table, root)
    uris = [storage.join(folder, name) for name in names]
    if not uris:
        return spark.createDataFrame([], spark_schema(table))
    return spark.read.schema(spark_schema(table)).option("basePath", folder).parquet(*uris)

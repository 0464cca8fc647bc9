"""What a table's log tells of its files: all that a version names, and those that came after one."""

from __future__ import annotations

import json
from functools import lru_cache
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable

from lake import storage
from lake.table import path
from schemas.table import Table


def added_since(table: Table, root: str, snapshot: DeltaTable, version: int | None) -> list[tuple[str, dict]] | None:
    """Files of a snapshot that hold every row added after a version: (name, partition).

    Files that a compaction made of older rows alone are left out. None where that version is not given or the log no
    longer tells: then all files of the snapshot have to be looked at.
    """
    if version is None or version > snapshot.version():
        return None
    folder, table_id = storage.join(path(table, root), "_delta_log"), str(snapshot.metadata().id)
    found: dict[str, dict] = {}
    for entry in range(version + 1, snapshot.version() + 1):
        try:
            adds, removed = _entry(storage.join(folder, f"{entry:020}.json"), table_id)
        except FileNotFoundError:
            return None
        rewritten = [found.pop(name) for name in removed if name in found]
        for name, values, is_new in adds:
            if is_new or values in rewritten:  # compaction moves rows within a folder
                found[name] = values
    return list(found.items())


@lru_cache(maxsize=1024)
def _entry(uri: str, table_id: str) -> tuple[list[tuple[str, dict, bool]], list[str]]:
    """One entry of the log: files it adds (name, partition, whether their rows are new) and names of those it removes.

    What is written is never changed, so that a run of many waves reads each entry once. table_id: the folder may be another
    table's tomorrow.
    """
    actions = [json.loads(line) for line in storage.read_bytes(uri).splitlines()]
    added = [action["add"] for action in actions if "add" in action]
    adds = [(unquote(add["path"]), add["partitionValues"], bool(add["dataChange"])) for add in added]
    return adds, [unquote(action["remove"]["path"]) for action in actions if "remove" in action]


def sizes(snapshot: DeltaTable) -> dict[str, int]:
    """Bytes of every file of a snapshot, by name."""
    actions = pa.table(snapshot.get_add_actions(flatten=True))
    names = [unquote(name) for name in actions["path"].to_pylist()]
    return dict(zip(names, actions["size_bytes"].to_pylist(), strict=True))


def all_files(snapshot: DeltaTable) -> list[tuple[str, dict]]:
    """(name, partition) of every file of a snapshot."""
    columns = list(snapshot.metadata().partition_columns)
    actions = pa.table(snapshot.get_add_actions(flatten=True))
    values = [actions[f"partition.{name}"].cast(pa.string()).to_pylist() for name in columns]
    names = [unquote(name) for name in actions["path"].to_pylist()]
    rows = zip(*values, strict=True) if columns else [()] * len(names)
    return [(name, dict(zip(columns, row, strict=True))) for name, row in zip(names, rows, strict=True)]

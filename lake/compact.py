"""Small files of one folder put together, by an entry of the log that follows what was looked at, or by none.

Not delta-rs' own `optimize`: before it commits it takes the newest version for the one it looked at, so that of two at once
both land and every row is there twice.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import DeltaTable

from lake import storage
from lake.commit import check_fence, failed_again
from lake.log import all_files, sizes
from lake.names import run_of
from lake.parquet import DataFile, PartWriter, dataset, with_partition
from lake.table import file_system, open_table, path
from schemas.table import Table

_A_COMMIT = 32  # bins
_PLAIN = re.compile(r"[A-Za-z0-9_=./-]+")  # spelled in the log as it is in the store


@dataclass(frozen=True)
class _Move:
    """old: name -> bytes, of one folder; new: the file that holds their rows; none where they have no rows."""

    partition: dict[str, str]
    old: dict[str, int]
    new: list[DataFile]


def compact(table: Table, root: str, wave_id: str, target_bytes: int) -> None:
    """Put files together up to this size. Those that another run put together meanwhile are left as that run left them.

    Raises Fenced, StoreError.
    """
    store, moves = file_system(table, root), []
    for partition, old in _bins(open_table(table, root), target_bytes):
        moves.append(_Move(partition, old, _merge(table, root, store, list(old), partition, wave_id)))
        if len(moves) == _A_COMMIT:
            _replace(table, root, moves, run_of(wave_id))
            moves = []
    _replace(table, root, moves, run_of(wave_id))


def _bins(snapshot: DeltaTable, target_bytes: int) -> Iterator[tuple[dict[str, str], dict[str, int]]]:
    """(partition, name -> bytes): two files or more of one folder, together at most the target."""
    size = sizes(snapshot)
    folders: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, partition in sorted(all_files(snapshot), key=lambda file: (size[file[0]], file[0])):
        if _PLAIN.fullmatch(name):
            folders.setdefault(tuple(partition.items()), []).append(name)
    for folder, names in folders.items():
        taken: dict[str, int] = {}
        room = target_bytes
        for name in names:
            if size[name] > room:
                if len(taken) > 1:
                    yield dict(folder), taken
                taken, room = {}, target_bytes
            taken[name] = size[name]
            room -= size[name]
        if len(taken) > 1:
            yield dict(folder), taken


def _merge(
    table: Table, root: str, store: pafs.FileSystem, names: Sequence[str], partition: dict[str, str], wave_id: str
) -> list[DataFile]:
    with PartWriter(table, root, wave_id) as parts:
        for name in names:
            for batch in dataset(store, [name]).to_batches():
                parts.write(with_partition(table, pa.Table.from_batches([batch]), partition))
        return parts.close()


def _replace(table: Table, root: str, moves: Sequence[_Move], run_id: str) -> None:
    """Name the new files in the place of the old ones. New files that come too late stay for a later `maintain`."""
    fails = 0
    while True:
        snapshot = open_table(table, root)
        named = {name for name, _ in all_files(snapshot)}
        # Of the others somebody was first: perhaps this very entry, whose answer got lost.
        moves = [move for move in moves if move.old.keys() <= named]
        if not moves:
            return
        check_fence(table, root, snapshot, run_id)
        failure = _put(table, root, snapshot.version() + 1, moves)
        if failure is None:
            return
        fails = failed_again(table, root, snapshot, failure, fails)


def _put(table: Table, root: str, version: int, moves: Sequence[_Move]) -> Exception | None:
    """The entry of this version, as Delta's protocol has it ("Actions"), or none."""
    now = int(time.time() * 1000)
    counts = {"numRemovedFiles": sum(len(m.old) for m in moves), "numAddedFiles": sum(len(m.new) for m in moves)}
    actions = [{"commitInfo": {"timestamp": now, "operation": "OPTIMIZE", "operationMetrics": counts}}]
    for move in moves:
        same = {"dataChange": False, "partitionValues": move.partition}
        for name, size in move.old.items():
            gone = {"path": name, "deletionTimestamp": now, "extendedFileMetadata": True, "size": size}
            actions.append({"remove": gone | same})
        for file in move.new:
            came = {"path": file.name, "modificationTime": now, "size": file.size, "stats": file.stats}
            actions.append({"add": came | same})
    entry = storage.join(path(table, root), "_delta_log", f"{version:020}.json")
    try:
        storage.create(entry, "\n".join(json.dumps(action) for action in actions).encode())
    except (FileExistsError, storage.StoreError) as error:
        return error
    return None

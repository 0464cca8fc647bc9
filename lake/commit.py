"""The one committer: every row enters a table by an entry of its Delta log that is put down if nobody else has.

Parquet files are written into the table's folder first, where no reader sees them; the entry that names them is the
commit. It follows the very snapshot in which one looked which keys are there already, and fails if any other entry came
in between; then one looks again, at what came. The same on a local disk (link) and on S3 (conditional put), for any
number of writers.

Each set of rows lands under a mark of its own (a wave's id and the table's name, say), kept in the log with the number of
rows: doing it again changes nothing, also where the put arrived and its answer did not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from lake import storage
from lake.log import added_since, all_files
from lake.names import run_of, wave_of
from lake.parquet import DataFile, PartWriter, dataset, with_partition
from lake.table import arrow_schema, delta_schema, file_system, open_table, path
from schemas.table import Table

_TRIES = 4  # of a put that fails although nobody else came
_PAUSE_S = 0.25  # before the second try, doubled before each further one


class Fenced(RuntimeError):
    """A run was taken for dead and what it had staged is being removed: nothing of it may be committed any more."""


@dataclass(frozen=True)
class Landed:
    """What an append did: rows it brought, rows whose keys were there already, times another writer came first.

    files: names of those it brought them in; none where an earlier life did so, of which only the mark tells.
    """

    rows: int
    known: int
    collisions: int
    files: tuple[str, ...] = ()


# From a snapshot, the version that was looked at last (None: none) and staged files to those whose rows are new.
_Look = Callable[[DeltaTable, int | None, Sequence[DataFile]], Sequence[DataFile]]


def append(
    table: Table, root: str, files: Sequence[DataFile], mark: str, wave_id: str, missing_at: int | None = None
) -> Landed:
    """Commit the rows of these files whose keys the table does not have yet, once and for all under this mark.

    missing_at: a version of the table in which none of their keys was; then only files that other runs added since are
    looked at, so that a wave costs the same however many there were before it. None where nobody has looked.
    Raises Fenced, StoreError.
    """
    look = partial(_without_known, table, root, wave_id, table.key)
    return _land(table, root, files, mark, wave_id, missing_at, look)


def append_new(
    table: Table,
    root: str,
    files: Sequence[DataFile],
    mark: str,
    wave_id: str,
    key: tuple[str, ...],
    missing_at: int | None,
) -> Landed:
    """`append` for rows that another run may have brought under a key of its own since a version: a part of the key says
    whether they are the same. None: nobody else brings them."""
    if missing_at is None:
        return append_once(table, root, files, mark, wave_id)
    return _land(table, root, files, mark, wave_id, missing_at, partial(_without_known, table, root, wave_id, key))


def append_once(table: Table, root: str, files: Sequence[DataFile], mark: str, wave_id: str) -> Landed:
    """`append` for rows whose mark alone tells whether they are there: no key is looked up."""
    return _land(table, root, files, mark, wave_id, None, lambda snapshot, since, files: files)


# `append` or `append_once`.
_Landing = Callable[[Table, str, Sequence[DataFile], str, str], Landed]


def _land(
    table: Table, root: str, files: Sequence[DataFile], mark: str, wave_id: str, since: int | None, look: _Look
) -> Landed:
    planned, run_id = sum(file.rows for file in files), run_of(wave_id)
    collisions, fails = 0, 0
    put: tuple[str, ...] = ()
    while True:
        snapshot = open_table(table, root)
        landed = snapshot.transaction_version(mark)
        if landed is not None:
            mine = put if put and set(put) <= {name for name, _ in all_files(snapshot)} else ()
            return Landed(landed - 1, planned - (landed - 1), collisions, mine)
        check_fence(table, root, snapshot, run_id)
        files, since = look(snapshot, since, files), snapshot.version()
        rows = sum(file.rows for file in files)
        if not rows:
            return Landed(0, planned, collisions)
        put = tuple(file.name for file in files)
        failure = _put(table, snapshot, files, mark, rows + 1)  # a fence's version is 1, so that no wave's is
        if failure is None:
            return Landed(rows, planned - rows, collisions, put)
        fails = failed_again(table, root, snapshot, failure, fails)
        collisions += fails == 0


def failed_again(table: Table, root: str, snapshot: DeltaTable, failure: Exception, fails: int) -> int:
    """How often in a row a put failed although nobody else wrote; 0 if somebody came first, perhaps this very entry.

    Waits before the next try. Raises StoreError once that was too often.
    """
    if open_table(table, root).version() > snapshot.version():
        return 0
    if fails + 1 == _TRIES:
        raise storage.StoreError(
            f"{path(table, root)}: the log takes no entry, although nobody else writes there: {storage.cause(failure)}"
        ) from failure
    time.sleep(_PAUSE_S * 2 ** (fails + 1))
    return fails + 1


def note_once(
    table: Table, root: str, rows: list[dict[str, Any]], mark: str, wave_id: str, land: _Landing = append_once
) -> None:
    """A few rows at hand. A column that a row lacks is NULL.

    land: `append` for what may come again after its mark has expired, as what an id stands for does.
    """
    if _noted(table, root, mark):
        return
    values = [{column.name: row.get(column.name) for column in table.columns} for row in rows]
    with PartWriter(table, root, wave_id) as parts:
        parts.write(pa.Table.from_pylist(values, arrow_schema(table)))
        land(table, root, parts.close(), mark, wave_id)


def _noted(table: Table, root: str, mark: str) -> bool:
    """Whether something was noted under this mark, as far as the table's log reaches back."""
    return open_table(table, root).transaction_version(mark) is not None


def fence_of(run_id: str) -> str:
    """The mark that keeps a dead run's commits out."""
    return f"fence/{run_id}"


def check_fence(table: Table, root: str, snapshot: DeltaTable, run_id: str) -> None:
    """Raises Fenced where this run was taken for dead."""
    if snapshot.transaction_version(fence_of(run_id)):
        raise Fenced(
            f"{path(table, root)}: run {run_id} was taken for dead and cleaned up while it stood still; its work is "
            "pending again: run the job once more"
        )


def fence(table: Table, root: str, run_id: str) -> None:
    """Keep a dead run from committing to this table: what it had staged there can then be removed.

    A run that only stood still, and had looked before this, finds that another entry came first, looks again, and sees it.
    Raises StoreError.
    """
    fails = 0
    while True:
        snapshot = open_table(table, root)
        if snapshot.transaction_version(fence_of(run_id)):
            return
        failure = _put(table, snapshot, [], fence_of(run_id), 1)
        if failure is None:
            return
        fails = failed_again(table, root, snapshot, failure, fails)


def _put(
    table: Table, snapshot: DeltaTable, files: Sequence[DataFile], mark: str, version: int
) -> DeltaError | OSError | None:
    """One entry right after `snapshot`, or none. Of a failure only the log knows what came of it."""
    now_ms = int(time.time() * 1000)
    try:
        snapshot.create_write_transaction(
            [AddAction(file.name, file.size, file.partition, now_ms, True, file.stats) for file in files],
            "append",
            delta_schema(table),
            partition_by=list(table.partition_by) or None,
            commit_properties=CommitProperties(
                # With its time, so that both implementations of Delta keep the mark for as long as the table says.
                app_transactions=[Transaction(mark, version, now_ms)],
                max_commit_retries=0,
            ),
        )
    except (DeltaError, OSError) as error:
        return error
    return None


def _without_known(
    table: Table,
    root: str,
    wave_id: str,
    whole_key: tuple[str, ...],
    snapshot: DeltaTable,
    since: int | None,
    files: Sequence[DataFile],
) -> Sequence[DataFile]:
    """The same rows without those whose keys the snapshot has; files that lose rows are written anew."""
    came = added_since(table, root, snapshot, since)
    others = all_files(snapshot) if came is None else came
    if came is not None and table.key_is_local:
        # What a run cuts into waves has each key once, where one can say so beforehand: not of contents of files.
        others = [(name, values) for name, values in others if not _of_another_wave(name, wave_id)]
    if not others or not files:
        return files
    store = file_system(table, root)
    key = [name for name in whole_key if name not in table.partition_by]
    fresh: list[DataFile] = []
    for mine, near in _neighbours(table, files, others):
        known = _known_places(store, [file.name for file in mine], near, key) if near else {}
        for file in mine:
            if file.name not in known:
                fresh.append(file)
            elif len(known[file.name]) < file.rows:
                fresh.append(_rewrite(table, root, store, file, known[file.name], wave_id))
    return fresh


def _of_another_wave(name: str, wave_id: str) -> bool:
    """Whether a file is of the same run, of another of its waves."""
    wave = wave_of(name) or ""
    return wave != wave_id and run_of(wave) == run_of(wave_id)


def _neighbours(
    table: Table, files: Sequence[DataFile], others: Sequence[tuple[str, dict]]
) -> Iterator[tuple[list[DataFile], list[str]]]:
    """Files with the names of those others that may hold the same keys: all of them, or those in the same folder."""
    if not table.key_is_local:
        yield list(files), [name for name, _ in others]
        return
    folders: dict[tuple, list[DataFile]] = {}
    for file in files:
        folders.setdefault(tuple(file.partition.items()), []).append(file)
    for folder, mine in folders.items():
        yield mine, [name for name, values in others if values == dict(folder)]


def _known_places(
    store: pafs.FileSystem, names: Sequence[str], others: Sequence[str], key: list[str]
) -> dict[str, list[int]]:
    """By file, numbers of its rows whose keys are in others. Reads key columns only, the others once, batch by batch."""
    tables = [dataset(store, [name]).to_table(columns=key) for name in names]
    file = pa.array([number for number, rows in enumerate(tables) for _ in range(rows.num_rows)], pa.int64())
    place = pa.array([place for rows in tables for place in range(rows.num_rows)], pa.int64())
    mine = pa.concat_tables(tables).append_column("_file", file).append_column("_place", place)
    found: dict[str, set[int]] = {}
    for batch in dataset(store, others).to_batches(columns=key):
        met = mine.join(pa.Table.from_batches([batch]), keys=key, join_type="left semi")
        for number, row in zip(met["_file"].to_pylist(), met["_place"].to_pylist(), strict=True):
            found.setdefault(names[number], set()).add(row)
    return {name: sorted(rows) for name, rows in found.items()}


def _rewrite(
    table: Table, root: str, store: pafs.FileSystem, file: DataFile, without: list[int], wave_id: str
) -> DataFile:
    """A new file with the other rows; the old one stays for `maintain` to remove."""
    rows = dataset(store, [file.name]).to_table()
    kept = rows.take(sorted(set(range(rows.num_rows)) - set(without)))
    with PartWriter(table, root, wave_id) as parts:
        parts.write(with_partition(table, kept, file.partition))
        (written,) = parts.close()
    return written

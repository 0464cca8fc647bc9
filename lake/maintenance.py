"""Keeping tables small and clean: compaction, vacuum, and files that no table will ever name.

Removes nothing that a living run, a wave in staging or a reader of the recent past could need.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lake import storage
from lake.commit import fence
from lake.compact import compact
from lake.lease import read as read_lease
from lake.listing import walk
from lake.log import all_files
from lake.names import run_of, wave_id, wave_of
from lake.staging import all_waves, run_folder
from lake.table import open_table, path
from schemas.table import Table


@dataclass(frozen=True)
class Upkeep:
    """files: in the table, before and after compaction. vacuumed, orphans: files removed. bytes_freed: by both."""

    files_before: int
    files_after: int
    vacuumed: int
    orphans: int
    bytes_freed: int


def upkeep(table: Table, root: str, run_id: str, target_bytes: int, retention_hours: float) -> Upkeep:
    """Compact small files, remove those that compaction replaced long ago, then those of killed runs; leave a checkpoint."""
    before = _count(table, root)
    compact(table, root, wave_id(run_id, 0), target_bytes)
    vacuumed, freed = vacuum(table, root, safe_hours(root, retention_hours))
    orphans, freed_by_orphans = remove_orphans(table, root, retention_hours)
    snapshot = open_table(table, root)
    with storage.doing("written", path(table, root)):
        snapshot.create_checkpoint()
        snapshot.cleanup_metadata()
    return Upkeep(before, _count(table, root), vacuumed, orphans, freed + freed_by_orphans)


def _count(table: Table, root: str) -> int:
    return len(all_files(open_table(table, root)))


def safe_hours(root: str, retention_hours: float) -> float:
    """How long removed files are kept: the setting, or as long as the oldest run or staged wave has been there."""
    oldest = now = time.time()
    for run_id in storage.children(storage.join(root, "staging")):
        try:
            record = read_lease(root, run_id)
        except storage.Damaged:
            record = None
        oldest = min(oldest, record["started_at"] if record else now)
    for wave in all_waves(root):
        try:
            oldest = min(oldest, storage.entry(wave.path("manifest.json")).modified_at.timestamp())
        except FileNotFoundError:
            continue
    return max(retention_hours, (now - oldest) / 3600 + 1 if oldest < now else 0)


def vacuum(table: Table, root: str, hours: float) -> tuple[int, int]:
    """Remove files that the table no longer names and has not named for so many hours. Returns files and bytes."""
    snapshot = open_table(table, root)
    gone = snapshot.vacuum(int(hours), dry_run=True, enforce_retention_duration=False)
    return _remove([storage.join(path(table, root), name) for name in gone])


def remove_orphans(table: Table, root: str, retention_hours: float) -> tuple[int, int]:
    """Remove files of runs that are no more which no commit names. Returns files and bytes.

    A run whose folder in staging is gone has ended, or was cleaned up after; should it only stand still, a fence keeps it
    from naming what is removed here. Files that no run of ours wrote must be older than the retention.
    """
    folder = f"/tables/{table.name}/"  # whichever way a store spells what comes before it
    found = {entry.uri.rpartition(folder)[2]: entry for entry in walk(path(table, root))}
    owners = {name: run_of(wave_of(name) or "") for name in found if not name.startswith("_delta_log/")}
    ended = {run for run in set(owners.values()) - {""} if not storage.exists(run_folder(root, run))}
    # Only now: what an ended run committed, it committed before this snapshot.
    snapshot = open_table(table, root)
    named = {name for name, _ in all_files(snapshot)}
    named |= set(snapshot.vacuum(0, dry_run=True, enforce_retention_duration=False))  # `vacuum` sees to these
    long_ago = time.time() - retention_hours * 3600
    lost = {
        name: run
        for name, run in owners.items()
        if name not in named and (run in ended or (not run and found[name].modified_at.timestamp() < long_ago))
    }
    for run in set(lost.values()) - {""}:
        fence(table, root, run)
    # A run that only stood still may have committed between the look and its fence.
    named = {name for name, _ in all_files(open_table(table, root))}
    return _remove([found[name].uri for name in lost if name not in named])


def _remove(uris: list[str]) -> tuple[int, int]:
    freed = removed = 0
    for uri in uris:
        try:
            freed += storage.entry(uri).size
        except FileNotFoundError:
            continue
        storage.delete(uri)
        removed += 1
    return removed, freed

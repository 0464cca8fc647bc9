"""Maintenance: what nobody needs is removed, what anybody could need stays."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from sealed import abandon, put_down
from things import THINGS, ids_of, land, staged, wave

from lake import commit, maintenance, storage
from lake.catalog import Lake, create_all
from lake.commit import Fenced, append
from lake.lease import Lease
from lake.log import all_files
from lake.maintenance import remove_orphans, safe_hours, upkeep
from lake.recovery import recover
from lake.staging import run_folder
from lake.table import create, open_table
from lake.waves import settle
from schemas.scores import SCORES

WEEK = 168


@pytest.fixture
def made(anywhere):
    create(THINGS, anywhere)
    return anywhere


def there(root: str, name: str) -> bool:
    return storage.exists(storage.join(root, "tables", "things", name))


def names(root: str) -> set[str]:
    return {name for name, _ in all_files(open_table(THINGS, root))}


def test_small_files_become_one_and_nothing_else_changes(made):
    for number in range(12):
        land(made, wave("run", number), f"k{number:02}")
    before = names(made)
    found = upkeep(THINGS, made, "upkeep", 128 << 20, WEEK)
    assert (found.files_before, found.files_after, found.orphans) == (12, 1, 0)
    assert ids_of(made) == [f"k{number:02}" for number in range(12)]
    assert all(there(made, name) for name in before)  # readers of the recent past
    again = upkeep(THINGS, made, "upkeep", 128 << 20, WEEK)
    assert (again.files_before, again.files_after, again.vacuumed) == (1, 1, 0)
    assert upkeep(THINGS, made, "upkeep", 128 << 20, 0).vacuumed == 12 and not any(there(made, name) for name in before)
    assert land(made, wave("late"), "k03", "new").known == 1  # keys are found in compacted files too


def test_files_that_no_commit_named_go_once_their_run_is_gone(made):
    """Given files of a collision, of a run that is at work and of one that is gone, then only the last one's go."""
    land(made, wave("run"), "a")
    lost, working = staged(made, wave("gone"), "b"), staged(made, wave("working"), "c")
    lease = Lease(made, "working", "rollout", 100)
    try:
        assert remove_orphans(THINGS, made, WEEK)[0] == 1
        assert not there(made, lost[0].name) and there(made, working[0].name)
        assert append(THINGS, made, working, "working/things", wave("working")).rows == 1
    finally:
        lease.close()
    assert ids_of(made) == ["a", "c"]


def test_a_run_whose_files_were_removed_cannot_name_them_any_more(made):
    """It stood still for longer than its lease, and wakes."""
    mine = staged(made, wave("slow"), "a")
    assert remove_orphans(THINGS, made, WEEK)[0] == 1
    with pytest.raises(Fenced, match="run slow was taken for dead"):
        append(THINGS, made, mine, "slow/things", wave("slow"))
    assert ids_of(made) == []


def test_what_a_slow_run_names_between_the_look_and_the_fence_stays(made, monkeypatch):
    mine = staged(made, wave("slow"), "a")

    def late(table, root, run_id):
        append(THINGS, made, mine, "slow/things", wave("slow"))
        commit.fence(table, root, run_id)

    monkeypatch.setattr(maintenance, "fence", late)
    assert remove_orphans(THINGS, made, WEEK)[0] == 0 and there(made, mine[0].name) and ids_of(made) == ["a"]


def test_half_written_files_of_killed_tasks_are_orphans_too(tmp_path):
    create(THINGS, str(tmp_path))
    (file,) = staged(str(tmp_path), wave("gone"), "a")
    path = tmp_path / "tables" / "things" / file.name
    half = path.with_name(f".0123456789ab.{path.name}")
    path.rename(half)
    assert remove_orphans(THINGS, str(tmp_path), WEEK)[0] == 1 and not half.exists()


def test_files_of_strangers_stay_for_as_long_as_the_retention(tmp_path):
    create(THINGS, str(tmp_path))
    foreign = tmp_path / "tables" / "things" / "part-0.parquet"
    foreign.write_bytes(b"?")
    assert remove_orphans(THINGS, str(tmp_path), WEEK)[0] == 0 and foreign.exists()
    long_ago = time.time() - 3600 * (WEEK + 1)
    os.utime(foreign, (long_ago, long_ago))
    assert remove_orphans(THINGS, str(tmp_path), WEEK)[0] == 1 and not foreign.exists()


def test_retention_is_never_shorter_than_the_oldest_run_or_staged_wave_needs(tmp_path):
    root = str(tmp_path)
    assert safe_hours(root, 24) == 24
    old = {"job": "rollout", "owner": {}, "heartbeat": 0.0, "started_at": time.time() - 3600 * 50}
    storage.write(storage.join(run_folder(root, "old"), "run.json"), json.dumps(old).encode())
    assert 51 <= safe_hours(root, 24) < 51.1
    storage.write(storage.join(run_folder(root, "new"), "w00001", "manifest.json"), b"{}")
    manifest = Path(run_folder(root, "new"), "w00001", "manifest.json")
    os.utime(manifest, (time.time() - 3600 * 90,) * 2)
    assert 91 <= safe_hours(root, 24) < 91.1 and safe_hours(root, 1000) == 1000


def test_what_a_held_wave_staged_stays_and_can_still_be_released(spark, tmp_path):
    root = str(tmp_path)
    create_all(root)
    lake = Lake(root, lambda: spark)
    held = put_down(lake, good=1, broken=3)
    assert recover(lake, 120).held
    upkeep(SCORES, root, "upkeep", 128 << 20, 0)
    assert settle(lake, held, release=True).landed["scores"].rows == 1


def test_what_a_dead_run_staged_and_did_not_seal_goes_after_the_next_run_has_mended(spark, tmp_path):
    root = str(tmp_path)
    create_all(root)
    lake = Lake(root, lambda: spark)
    wave = put_down(lake, good=2, broken=0)
    files = [file.name for file in wave.manifest().outputs[0].files]
    storage.delete(wave.path("manifest.json"))
    abandon(lake, wave.run_id)
    assert remove_orphans(SCORES, root, WEEK)[0] == 0  # not yet: its folder is there
    assert recover(lake, 120).discarded == 1
    assert remove_orphans(SCORES, root, WEEK)[0] == len(files)

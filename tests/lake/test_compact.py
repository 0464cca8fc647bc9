"""Compaction: whoever else writes, and at whatever moment, every row is there once."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from things import DAY, THINGS, ids_of, land, rows_of, wave

from lake import compact as module
from lake import storage
from lake.commit import Fenced, fence
from lake.compact import compact
from lake.log import all_files
from lake.table import create, open_table

SIX = [f"k{number}" for number in range(6)]
LARGE = 128 << 20


@pytest.fixture
def six(anywhere):
    """A table with six files of one row each."""
    create(THINGS, anywhere)
    for number, name in enumerate(SIX):
        land(anywhere, wave("run", number), name)
    return anywhere


def files(root: str) -> list[str]:
    return [name for name, _ in all_files(open_table(THINGS, root))]


def test_of_two_at_once_the_second_leaves_what_the_first_made(six, before_the_put):
    before_the_put(module, lambda: compact(THINGS, six, wave("first"), LARGE))
    compact(THINGS, six, wave("second"), LARGE)
    assert ids_of(six) == SIX
    (name,) = files(six)
    assert "first" in name


def test_what_lands_between_the_look_and_the_put_stays(six, before_the_put):
    before_the_put(module, lambda: land(six, wave("rival"), "new"))
    compact(THINGS, six, wave("tidy"), LARGE)
    assert ids_of(six) == [*SIX, "new"] and len(files(six)) == 2
    assert land(six, wave("late"), "k3", "new").known == 2


def test_an_answer_that_gets_lost_is_no_second_entry(six, monkeypatch):
    create_once = storage.create

    def lost(uri, data):
        create_once(uri, data)
        raise storage.StoreError("the connection was closed")

    before = open_table(THINGS, six).version()
    monkeypatch.setattr(storage, "create", lost)
    compact(THINGS, six, wave("tidy"), LARGE)
    assert ids_of(six) == SIX and open_table(THINGS, six).version() == before + 1


def test_a_log_that_takes_no_entry_is_one_clear_line(six, monkeypatch):
    def refused(uri, data):
        raise storage.StoreError("no")

    monkeypatch.setattr(storage, "create", refused)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(storage.StoreError, match="the log takes no entry, although nobody else writes there"):
        compact(THINGS, six, wave("tidy"), LARGE)
    assert ids_of(six) == SIX


def test_a_run_that_was_taken_for_dead_names_nothing(six):
    fence(THINGS, six, "slow")
    with pytest.raises(Fenced):
        compact(THINGS, six, wave("slow"), LARGE)
    assert len(files(six)) == 6


def test_folders_stay_apart_and_large_files_as_they_are(tmp_path):
    root = str(tmp_path)
    create(THINGS, root)
    other = DAY.replace(day=3)
    for number in range(3):
        land(root, wave("a", number), f"a{number}")
        land(root, wave("b", number), f"b{number}", day=other)
    size = next(iter(module.sizes(open_table(THINGS, root)).values()))
    compact(THINGS, root, wave("tidy"), size)  # no two fit
    assert len(files(root)) == 6
    compact(THINGS, root, wave("tidy"), size * 2 + 10)
    assert len(files(root)) == 4
    compact(THINGS, root, wave("tidy"), LARGE)
    assert len(files(root)) == 2
    assert {(row["id"], row["day"]) for row in rows_of(root)} == {
        (f"{letter}{number}", day) for letter, day in (("a", DAY), ("b", other)) for number in range(3)
    }


def test_what_it_writes_can_be_skipped_by_its_statistics(six):
    compact(THINGS, six, wave("tidy"), LARGE)
    actions = pa.table(open_table(THINGS, six).get_add_actions(flatten=True)).to_pylist()
    assert [(a["num_records"], a["min.id"], a["max.id"], a["partition.day"]) for a in actions] == [(6, "k0", "k5", DAY)]


def test_an_object_is_created_where_none_is_and_only_there(anywhere):
    uri = storage.join(anywhere, "place", "one")
    storage.write(storage.join(anywhere, "place", "other"), b"")
    storage.create(uri, b"first")
    with pytest.raises(FileExistsError):
        storage.create(uri, b"second")
    assert storage.read_bytes(uri) == b"first" and storage.children(storage.join(anywhere, "place")) == ["one", "other"]

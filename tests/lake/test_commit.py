"""The one committer: each key lands once, whoever else writes, on a disk and on a real S3 server alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from support import PROJECT
from things import DAY, THINGS, ids_of, land, rows_of, staged, wave

from lake import commit, log, storage
from lake.commit import Fenced, append, append_once, fence, note_once
from lake.compact import compact
from lake.table import create, open_table

OTHER_DAY = date(2026, 1, 3)


@pytest.fixture
def root(tmp_path):
    create(THINGS, str(tmp_path))
    return str(tmp_path)


@pytest.fixture
def made(anywhere):
    create(THINGS, anywhere)
    return anywhere


def files(root: str) -> set[str]:
    return {name for name, _ in log.all_files(open_table(THINGS, root))}


def test_rows_land_once_and_again_change_nothing(made):
    mine = staged(made, wave("a"), "a", "b", "c")
    assert rows_of(made) == []  # no reader sees what no entry names
    first, again = (append(THINGS, made, mine, "a/things", wave("a")) for _ in range(2))
    assert (first.rows, first.known, first.collisions) == (3, 0, 0) == (again.rows, again.known, again.collisions)
    assert ids_of(made) == ["a", "b", "c"] and open_table(THINGS, made).version() == 1


def test_keys_that_are_there_are_left_out_and_counted(made):
    land(made, wave("a"), "a", "b", "c")
    half = land(made, wave("b"), "c", "d", "a", "e")
    none = land(made, wave("c"), "a", "e")
    assert (half.rows, half.known) == (2, 2) and (none.rows, none.known) == (0, 2)
    assert {row["id"]: (row["n"], row["wave_id"], row["day"]) for row in rows_of(made)} == {
        "a": (0, wave("a"), DAY),
        "b": (1, wave("a"), DAY),
        "c": (2, wave("a"), DAY),
        "d": (1, wave("b"), DAY),
        "e": (3, wave("b"), DAY),
    }
    assert open_table(THINGS, made).version() == 2  # nothing new leaves no entry


def test_files_without_a_known_key_are_committed_as_they_were_staged(root):
    land(root, wave("a"), "a")
    clean, mixed = staged(root, wave("b"), "x", "y"), staged(root, wave("b"), "a", "z")
    landed = append(THINGS, root, clean + mixed, "b/things", wave("b"))
    assert (landed.rows, landed.known) == (3, 1)
    assert clean[0].name in files(root) and mixed[0].name not in files(root)
    assert ids_of(root) == ["a", "x", "y", "z"]


def test_a_key_is_looked_for_in_its_own_folder_only(root):
    land(root, wave("a"), "a")
    elsewhere = land(
        root, wave("b"), "a", day=OTHER_DAY
    )  # things of one key have one day: this is a fault of the caller
    assert elsewhere.rows == 1
    anywhere = replace(THINGS, key_is_local=False)
    files = staged(root, wave("c"), "a", day=date(2026, 1, 4))
    assert append(anywhere, root, files, "c/things", wave("c")).known == 1


def test_a_rival_between_look_and_put_costs_a_collision_and_no_row(made, before_the_put):
    """The rival looks at the same version, brings a part of the same keys, and comes first."""
    rival = []
    before_the_put(commit, lambda: rival.append(land(made, wave("rival"), "b", "x")))
    mine = land(made, wave("mine"), "a", "b", "c")
    assert (mine.rows, mine.known, mine.collisions) == (2, 1, 1)
    assert (rival[0].rows, rival[0].known, rival[0].collisions) == (2, 0, 0)
    assert ids_of(made) == ["a", "b", "c", "x"]
    assert {row["id"]: row["wave_id"] for row in rows_of(made)}["b"] == wave("rival")


def test_a_rival_with_other_rows_costs_a_look_and_nothing_is_written_anew(root, before_the_put):
    before_the_put(commit, lambda: land(root, wave("rival"), "x"))
    mine = staged(root, wave("mine"), "a")
    landed = append(THINGS, root, mine, "mine/things", wave("mine"))
    assert (landed.rows, landed.collisions) == (1, 1) and mine[0].name in files(root)


@pytest.fixture
def looked(monkeypatch):
    """Files whose keys were read."""
    read, found = commit._known_places, []

    def spy(store, names, others, key):
        found.extend(others)
        return read(store, names, others, key)

    monkeypatch.setattr(commit, "_known_places", spy)
    return found


def test_what_was_known_to_be_missing_is_looked_for_only_in_what_others_added_since(root, looked):
    land(root, wave("old"), *[f"old{n}" for n in range(5)])
    planned_at = open_table(THINGS, root).version()
    land(root, wave("mine", 1), "a", missing_at=planned_at)
    land(root, wave("mine", 2), "b", missing_at=planned_at)  # own waves are disjoint: not even these are read
    assert looked == []
    land(root, wave("rival"), "c", "x", missing_at=planned_at)
    looked.clear()
    third = land(root, wave("mine", 3), "c", "d", missing_at=planned_at)
    assert (third.rows, third.known) == (1, 1)
    assert len(looked) == 1 and wave("rival") in looked[0]
    assert Counter(ids_of(root)).most_common(1)[0][1] == 1


def test_a_rival_makes_known_to_be_missing_untrue(made, before_the_put):
    before_the_put(commit, lambda: land(made, wave("rival"), "a", missing_at=0))
    mine = land(made, wave("mine"), "a", "b", missing_at=0)
    assert (mine.rows, mine.known, mine.collisions) == (1, 1, 1) and ids_of(made) == ["a", "b"]


def test_compaction_and_a_log_that_was_cut_hide_no_row(root, looked):
    for n in range(3):
        land(root, wave("old", n), f"old{n}")
    planned_at = open_table(THINGS, root).version()
    compact(THINGS, root, wave("tidy"), 128 << 20)
    assert log.added_since(THINGS, root, open_table(THINGS, root), planned_at) == []  # only older rows moved
    land(root, wave("rival"), "a", missing_at=planned_at)
    compact(THINGS, root, wave("tidy"), 128 << 20)
    came = log.added_since(THINGS, root, open_table(THINGS, root), planned_at)
    assert len(came) == 1  # the rival's row is somewhere in there
    assert land(root, wave("mine", 1), "a", missing_at=planned_at).known == 1

    open_table(THINGS, root).create_checkpoint()
    (entry,) = Path(root, "tables/things/_delta_log").glob("*5.json")
    entry.unlink()
    log._entry.cache_clear()  # as a run would see it that starts now
    assert log.added_since(THINGS, root, open_table(THINGS, root), planned_at) is None
    assert land(root, wave("mine", 2), "a", "old1", "b", missing_at=planned_at).known == 2
    assert ids_of(root) == ["a", "b", "old0", "old1", "old2"]


def test_of_what_was_compacted_only_the_days_on_which_something_came_are_looked_at(root):
    for n in range(2):
        land(root, wave("old", n), f"old{n}", day=date(2026, 1, 1))
        land(root, wave("older", n), f"older{n}")
    planned_at = open_table(THINGS, root).version()
    land(root, wave("rival"), "a")
    compact(THINGS, root, wave("tidy"), 128 << 20)  # both days in one entry
    ((_, values),) = log.added_since(THINGS, root, open_table(THINGS, root), planned_at)
    assert values == {"day": str(DAY)}


def test_side_rows_are_there_once_under_their_mark(made):
    for _ in range(2):
        append_once(THINGS, made, staged(made, wave("a"), "a"), "a/side", wave("a"))
        note_once(THINGS, made, [{"id": "b", "n": 1, "day": DAY}], "b/side", wave("b"))
    note_once(THINGS, made, [{"id": "a", "day": DAY}], "c/side", wave("c"))  # the mark decides, not the key
    assert sorted((row["id"], row["n"]) for row in rows_of(made) if row["wave_id"] != wave("a")) == [
        ("a", None),
        ("b", 1),
    ]
    assert ids_of(made) == ["a", "a", "b"]


def test_side_rows_of_racing_writers_are_there_once(root):
    def work(number: int) -> None:
        note_once(THINGS, root, [{"id": "shared", "day": DAY}], "shared", wave(f"r{number}"))
        note_once(THINGS, root, [{"id": f"own {number}", "day": DAY}], f"own {number}", wave(f"r{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert ids_of(root) == ["own 0", "own 1", "own 2", "own 3", "shared"]


def test_a_run_behind_a_fence_commits_nothing_more(root):
    mine = staged(root, wave("slow", 2), "b")
    land(root, wave("slow", 1), "a")
    fence(THINGS, root, "slow")
    fence(THINGS, root, "slow")
    with pytest.raises(Fenced, match=r"run slow was taken for dead .* pending again"):
        append(THINGS, root, mine, "slow2/things", wave("slow", 2))
    assert land(root, wave("slow", 1), "a").rows == 1 and ids_of(root) == ["a"]  # what had landed is said to have


def test_a_run_that_looked_before_the_fence_does_not_get_past_it(root, before_the_put):
    before_the_put(commit, lambda: fence(THINGS, root, "slow"))
    with pytest.raises(Fenced):
        land(root, wave("slow"), "a")
    assert ids_of(root) == []


def test_a_log_that_takes_no_entry_is_one_error(root, monkeypatch):
    monkeypatch.setattr(commit, "_PAUSE_S", 0.0)
    monkeypatch.setattr(commit, "_put", lambda *arguments: OSError("nobody knows"))
    with pytest.raises(storage.StoreError, match=r"things: the log takes no entry, .*: nobody knows"):
        land(root, wave("a"), "a")


@pytest.fixture
def proxy(s3_root, monkeypatch):
    """Lines of a proxy through which everybody now reaches the S3 server; it loses its answer to the first commit."""
    server = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    command = [sys.executable, str(PROJECT / "tests/lake/proxy.py"), server, "/_delta_log/00000000000000000001.json"]
    between = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.stdout.readline().strip())
    storage.client.cache_clear()
    yield between.stdout
    between.kill()
    between.wait()
    monkeypatch.undo()
    storage.client.cache_clear()


def test_a_put_that_lands_while_its_answer_is_cut_off_counts_as_landed_once(proxy, s3_root, tmp_path):
    root = storage.join(s3_root, tmp_path.name)
    create(THINGS, root)
    mine = staged(root, wave("a"), "a", "b")
    landed = append(THINGS, root, mine, "a/things", wave("a"))
    assert proxy.readline().startswith("200 ")  # it landed, and nobody was told
    assert (landed.rows, landed.known) == (2, 0) and ids_of(root) == ["a", "b"]
    assert open_table(THINGS, root).version() == 1
    again = append(THINGS, root, mine, "a/things", wave("a"))
    assert (again.rows, again.known) == (2, 0) and ids_of(root) == ["a", "b"]


def race(root: str, *writers: list[str]) -> tuple[list[str], int]:
    """Keys that racers were told had landed, and how often they collided."""
    env = os.environ | {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests' / 'lake'}"}
    command = [sys.executable, str(PROJECT / "tests/lake/racer.py"), root]
    racing = [subprocess.Popen([*command, *words], env=env, stdout=subprocess.PIPE, text=True) for words in writers]
    said = [writer.communicate(timeout=600)[0].splitlines() for writer in racing]
    assert all(writer.returncode == 0 for writer in racing)
    words = [line.split() for lines in said for line in lines]
    return [key for word, key in words if word == "acknowledged"], sum(
        int(n) for word, n in words if word == "collisions"
    )


@pytest.mark.timeout(900)
def test_what_two_racing_processes_commit_is_all_there(made, request):
    """200 commits; on S3, where each takes far longer, that is for `make soak`."""
    count = 50 if made.startswith("s3:") and not request.config.getoption("--soak") else 200
    acknowledged, collisions = race(made, ["a", str(count)], ["b", str(count)])
    assert sorted(acknowledged) == ids_of(made) == sorted(f"k{n}" for n in range(count))
    assert open_table(THINGS, made).version() == count and collisions > 0


@pytest.mark.timeout(300)
def test_a_writer_that_is_slow_between_look_and_put_overwrites_nobody(made):
    """Both orders: the slow one is overtaken by the quick one, and sometimes comes first."""
    acknowledged, collisions = race(made, ["slow", "30", "0.3"], ["quick", "30", "0.02"])
    assert sorted(acknowledged) == ids_of(made) == sorted(f"k{n}" for n in range(30)) and collisions > 0

"""Waves: whatever dies or goes wrong between two steps, each row is there once and the next run goes on."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sealed import LABELS, SILENCE, TASK, frame, mended, of_wave, put_down, score_rows, seal, staging
from things import files_of, rows_of

from lake import commit, rates, recovery, storage, table, waves
from lake.catalog import Lake
from lake.lease import Lease
from lake.recovery import recover
from lake.staging import Wave, run_folder, scratch
from lake.waves import Held, Superseded, Waves, settle
from lake.write import stage
from schemas.decisions import DECISIONS
from schemas.quality import QUALITY
from schemas.quarantine import QUARANTINE
from schemas.runs import RUNS
from schemas.scores import SCORES
from schemas.traces import TRACES


def test_what_dead_runs_left_is_rolled_forward_or_dropped(lake):
    sealed = put_down(lake, good=3, broken=0)
    unsealed = Wave(lake.root, sealed.run_id, "w00002")
    storage.write(unsealed.path("progress/task"), b"half")
    storage.write(scratch(lake.root, sealed.run_id, "waves-r/part.parquet"), b"a plan, and no wave")
    assert mended(lake) == (1, 1)
    assert len(of_wave(lake, sealed)) == 3 and staging(lake) == []
    events = [row["event"] for row in rows_of(lake.root, RUNS) if row["run_id"] == sealed.run_id]
    assert events == [f"wave {sealed.name}"]
    assert mended(lake) == (0, 0)


def test_a_share_that_is_allowed_exactly_passes_the_gate(lake):
    settled = settle(lake, put_down(lake, good=9, broken=1, allowed=0.1))
    assert (settled.landed["scores"].rows, settled.refused(SCORES)) == (9, 1)


def test_two_refusing_waves_of_one_run_leave_both_their_refusals(lake):
    first = put_down(lake, good=9, broken=1, allowed=0.5)
    second = put_down(lake, good=8, broken=2, allowed=0.5, run_id=first.run_id, number=2)
    assert mended(lake) == (2, 0)
    for wave, good, broken in ((first, 9, 1), (second, 8, 2)):
        refused = of_wave(lake, wave, QUARANTINE)
        assert (len(of_wave(lake, wave)), len(refused)) == (good, broken)
        assert {(row["table"], row["reason"]) for row in refused} == {("scores", "probs_sum_to_one")}
        checks = [row["check"] for row in of_wave(lake, wave, QUALITY)]
        assert len(checks) == len(set(checks)) > 5


def test_waves_of_a_run_that_is_alive_are_left_alone(lake):
    wave = put_down(lake, good=1, broken=0)
    alive = Lease(lake.root, wave.run_id, "score", SILENCE)
    try:
        assert mended(lake) == (0, 0) and wave.manifest() is not None
    finally:
        alive.close()


class Killed(BaseException):
    """As a SIGKILL: nothing catches it."""


# A step, and whether the kill comes after it.
KILLS = [
    (waves, "audit_output", False),
    (Wave, "note_audit", True),
    (waves, "publish", True),
    (waves, "note_quality", False),
    (waves, "record", True),
    (Wave, "remove", True),
]


@pytest.mark.parametrize(("where", "step", "after"), KILLS, ids=[name for _, name, _ in KILLS])
def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(lake, monkeypatch, where, step, after):
    wave = put_down(lake, good=19, broken=1)
    real = getattr(where, step)

    def dying(*arguments, **named):
        if after:
            real(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(where, step, dying)
        settle(lake, wave)
    again = mended(lake)
    assert again == ((0, 0) if step == "remove" else (1, 0))
    complete(lake, wave, good=19, broken=1)


def complete(lake: Lake, wave: Wave, good: int, broken: int) -> None:
    """Everything that a wave leaves is there, once."""
    ids = Counter(row["video_id"] for row in of_wave(lake, wave))
    assert len(ids) == good and set(ids.values()) == {1}
    assert len(of_wave(lake, wave, QUARANTINE)) == broken
    checks = [row["check"] for row in of_wave(lake, wave, QUALITY)]
    assert len(checks) == len(set(checks)) > 5
    events = [row for row in rows_of(lake.root, RUNS) if row["run_id"] == wave.run_id]
    assert [row["event"] for row in events] == [f"wave {wave.name}"]
    assert staging(lake) == []


def test_a_kill_between_the_tables_of_a_wave_is_mended(lake, monkeypatch):
    wave = Wave(lake.root, "score-twotables-1", "w00001")
    rows = score_rows(wave, 5, 0)
    decided = [
        row | {"rule_id": "u", "abstain": True, "reason": "below_threshold", "top_prob": 0.7, "labels": []}
        for row in rows
    ]
    decided = [row | {"prediction_set": ["rising"], "decided_at": row["scored_at"]} for row in decided]
    outputs = [stage(wave, SCORES, frame(lake, SCORES, rows)), stage(wave, DECISIONS, frame(lake, DECISIONS, decided))]
    seal(wave, *outputs)
    storage.write(storage.join(run_folder(lake.root, wave.run_id), "run.json"), b"")  # and its lease is cut short, too

    def dying(wanted, *arguments, **named):
        if wanted is DECISIONS:
            raise Killed
        return commit_append(wanted, *arguments, **named)

    commit_append = commit.append
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(commit, "append", dying)
        settle(lake, wave)
    assert (len(of_wave(lake, wave)), len(of_wave(lake, wave, DECISIONS))) == (5, 0)
    os.utime(Path(run_folder(lake.root, wave.run_id)) / "run.json", (0, 0))
    assert recover(lake, 0).settled == 1
    assert (len(of_wave(lake, wave)), len(of_wave(lake, wave, DECISIONS))) == (5, 5)


def test_a_kill_between_the_files_of_a_wave_leaves_nothing_to_see(lake):
    """Given a stage of two files of which one was written, when its run dies, then no reader sees it and it is dropped."""
    wave = Wave(lake.root, "score-halfstaged-1", "w00001")
    (first, *_) = stage(wave, SCORES, frame(lake, SCORES, score_rows(wave, 4, 0))).files
    assert storage.exists(storage.join(table.path(SCORES, lake.root), first.name))
    storage.write(wave.path("progress/task"), b"half")
    storage.write(storage.join(run_folder(lake.root, wave.run_id), "run.json"), b"{}"[:1])
    assert recover(lake, 0).discarded == 1
    assert of_wave(lake, wave) == [] and staging(lake) == []


def test_a_kill_inside_the_removal_does_not_bring_a_released_wave_back(lake, monkeypatch):
    """What is left of it must not read as a wave that still waits: its table would be blocked, although all is there."""
    wave = put_down(lake, good=1, broken=3)
    with pytest.raises(Held):
        settle(lake, wave)

    def half(folder, **named):
        for name in ("held.json", "audited.json"):
            (Path(folder) / name).unlink()
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(storage.shutil, "rmtree", half)
        settle(lake, wave, release=True)
    assert mended(lake) == (0, 1)
    complete(lake, wave, good=1, broken=3)


@pytest.mark.parametrize(
    ("broken", "rows", "stops"),
    [
        (0, 0, False),
        (1, 1, False),
        (2, 2, True),
        (1, 3, False),
        (3, 20, False),
        (6, 20, True),
        (250, 5000, False),
        (300, 5000, True),
        (5000, 5000, True),
    ],
)
def test_a_wave_stops_where_chance_does_not_explain_what_broke(broken, rows, stops):
    assert rates.surely_more(broken, rows, 0.05) == stops


def test_one_bad_row_of_three_stops_nothing(lake):
    wave = put_down(lake, good=2, broken=1)
    assert mended(lake) == (1, 0)
    complete(lake, wave, good=2, broken=1)


def test_what_a_gate_stops_of_an_expendable_wave_waits_for_nobody(lake):
    """Given a shadow's wave whose run died before its audit, when the next run comes, then it is dropped, and told."""
    wave = put_down(lake, good=1, broken=9)
    wave.seal(replace(wave.manifest(), expendable=True))
    found = recover(lake, SILENCE)
    assert (found.settled, found.discarded, found.held) == (0, 1, {}) and "it was dropped" in found.warnings[0]
    assert of_wave(lake, wave) == [] and staging(lake) == []
    assert {row["success"] for row in of_wave(lake, wave, QUALITY)} == {True, False}


def test_what_is_made_meanwhile_is_expendable(lake):
    def broken(wave: Wave) -> waves.Work:
        return [stage(wave, SCORES, frame(lake, SCORES, score_rows(wave, good=0, broken=5)))], {}

    lease = Lease(lake.root, "nightly-shadow-1", "nightly", SILENCE)
    try:
        mine = Waves(lake, lease, "nightly", TASK, LABELS, 0.05, {})
        with mine.expendable(), pytest.raises(Held, match="it was dropped"):
            mine.make(broken, {})
        assert storage.children(run_folder(lake.root, lease.run_id)) == ["run.json"]
        with pytest.raises(Held, match="waves release"):
            mine.make(broken, {})
    finally:
        lease.close()


def test_a_settled_wave_cannot_be_settled_again(lake):
    wave = put_down(lake, good=1, broken=0)
    settle(lake, wave)
    with pytest.raises(Superseded, match="another run has settled the wave"):
        settle(lake, wave)


def test_a_wave_of_a_run_that_was_fenced_out_is_dropped(lake):
    wave = put_down(lake, good=1, broken=0)
    commit.fence(SCORES, lake.root, wave.run_id)
    assert mended(lake) == (0, 1) and of_wave(lake, wave) == [] and staging(lake) == []


def test_a_wave_that_was_held_for_long_has_its_results_once(lake, monkeypatch):
    wave = put_down(lake, good=1, broken=3)
    assert recover(lake, SILENCE).held
    before = sorted(row["check"] for row in of_wave(lake, wave, QUALITY))
    once = commit.note_once
    # As after 30 days, when the mark of the first note has expired.
    monkeypatch.setattr(
        commit, "note_once", lambda table, root, rows, mark, *rest: once(table, root, rows, f"{mark}!", *rest)
    )
    settle(lake, wave, release=True)
    assert sorted(row["check"] for row in of_wave(lake, wave, QUALITY)) == before != []


def test_a_run_that_was_taken_for_dead_ends_by_itself_and_harms_nothing(lake):
    """Given a run that stood still while another cleaned up after it, when it wakes, then it publishes nothing."""
    lease = Lease(lake.root, "score-sleeper-1", "score", SILENCE)
    mine = Waves(lake, lease, "score", TASK, LABELS, 0.05, {})

    def write(wave: Wave):
        staged = stage(wave, SCORES, frame(lake, SCORES, score_rows(wave, 2, 0)))
        recovery.remove_run(lake.root, wave.run_id)
        return [staged], {}

    try:
        with pytest.raises(Superseded, match="run score-sleeper-1 stood still for longer than its lease"):
            mine.make(write, {})
    finally:
        lease.close()
    assert of_wave(lake, Wave(lake.root, "score-sleeper-1", "w00001")) == [] and staging(lake) == []


def written() -> int:
    """Bytes that this process and everything it started have sent to a disk, now gone or not."""
    parents, sums = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                lines = (folder / "io").read_text().splitlines()
                sums[int(folder.name)] = int(dict(line.split(": ") for line in lines)["write_bytes"])
            except OSError:
                continue
    mine, total = os.getpid(), 0
    for pid, count in sums.items():
        ancestor = pid
        while ancestor not in (mine, 0, None):
            ancestor = parents.get(ancestor)
        total += count if ancestor == mine else 0
    return total


def test_a_payload_is_written_once(lake):
    """From the stage to the published table: three times it was when staging was copied and Delta wrote it again."""
    wave, rng = Wave(lake.root, "rollout-payload-1", "w00001"), random.Random(0)
    size, count = 1 << 16, 256
    rows = [
        {
            "video_id": f"{number:064x}",
            "task": TASK,
            "recipe_id": "r",
            "input_digest": "0" * 16,
            "rollout_index": 0,
            "attempt": 0,
            "status": "parse_error",
            "text": rng.randbytes(size // 2).hex(),
            "logprob_sum": -1.0,
            "tokens": 1,
            "ingested_on": score_rows(wave, 1, 0)[0]["ingested_on"],
        }
        for number in range(count)
    ]
    staged_rows = frame(lake, TRACES, rows)
    settle(lake, put_down(lake, good=1, broken=0))  # whatever is made the first time
    before = written()
    seal(wave, stage(wave, TRACES, staged_rows))
    settle(lake, wave)
    folder = Path(table.path(TRACES, lake.root))
    files = sum((folder / name).stat().st_size for name in files_of(TRACES, lake.root, wave.id))
    spent = written() - before
    if spent == 0:
        pytest.skip("this file system does not count what is written to it")
    assert len(of_wave(lake, wave, TRACES)) == count and files > count * size / 2.5
    assert files <= spent < 1.5 * files, (spent, files)

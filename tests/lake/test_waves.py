"""Waves: whatever dies or goes wrong between two steps, each row is there once and the next run goes on."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from sealed import LABELS, TASK, frame, put_down, score_rows, seal
from things import files_of, rows_of

from lake import commit, recovery, storage, table, waves
from lake.catalog import Lake, create_all
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

SILENCE = 120


@pytest.fixture(scope="module")
def made(spark, tmp_path_factory):
    root = tmp_path_factory.mktemp("waves") / "lake"
    create_all(str(root))
    return Lake(str(root), lambda: spark)


@pytest.fixture
def lake(made):
    """A lake with every table, and nothing in staging."""
    storage.delete(storage.join(made.root, "staging"))
    return made


def of_wave(lake: Lake, wave: Wave, wanted=SCORES) -> list[dict]:
    return [row for row in rows_of(lake.root, wanted) if row["wave_id"] == wave.id]


def staging(lake: Lake) -> list[str]:
    return storage.children(storage.join(lake.root, "staging"))


def mended(lake: Lake) -> tuple[int, int]:
    """Waves that a recovery settled and dropped; none may be held."""
    found = recover(lake, SILENCE)
    assert not found.held and not found.warnings
    return found.settled, found.discarded


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
    decided = [row | {"rule_id": "u", "abstain": True, "reason": "below_threshold", "top_prob": 0.7} for row in rows]
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
    wave = put_down(lake, good=1, broken=1)
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
    complete(lake, wave, good=1, broken=1)


def test_a_settled_wave_cannot_be_settled_again(lake):
    wave = put_down(lake, good=1, broken=0)
    settle(lake, wave)
    with pytest.raises(Superseded, match="another run has settled the wave"):
        settle(lake, wave)


@pytest.fixture
def cut_short(lake):
    """A sealed wave one of whose files was cut short afterwards, and that file."""
    wave = put_down(lake, good=4, broken=0)
    file = Path(table.path(SCORES, lake.root), wave.manifest().outputs[0].files[0].name)
    os.truncate(file, file.stat().st_size // 2)
    return wave, file


def test_a_staged_file_cut_short_holds_its_wave_and_is_named(lake, cut_short):
    wave, file = cut_short
    found = recover(lake, SILENCE)
    (line,) = found.warnings
    assert f"wave {wave.id} is held: {file}: expected " in line and f"`deepintuit waves discard {wave.id}`" in line
    assert found.held.keys() == {("scores", TASK)} and "\n" not in line
    assert recovery.state(wave, SILENCE) == "held" and of_wave(lake, wave) == []


def test_a_held_wave_keeps_its_own_table_closed_and_no_other(lake, cut_short):
    held = recover(lake, SILENCE).held
    lease = Lease(lake.root, "score-other-1", "score", SILENCE)
    try:
        other = Waves(lake, lease, "score", TASK, LABELS, 0.05, held)
        other.must_be_open(TRACES, DECISIONS)
        with pytest.raises(Held, match="is held"):
            other.must_be_open(TRACES, SCORES)
        Waves(lake, lease, "score", "another task", LABELS, 0.05, held).must_be_open(SCORES)
    finally:
        lease.close()


def test_half_a_manifest_is_told_and_blocks_nobody_else(lake):
    wave = put_down(lake, good=1, broken=0)
    storage.write(wave.path("manifest.json"), b'{"wave_id": "sc')
    found = recover(lake, SILENCE)
    (line,) = found.warnings
    assert f"{wave.path('manifest.json')}: expected a JSON document, found 15 bytes" in line and not found.held
    assert f"`deepintuit waves discard {wave.id}`" in line and "release" not in line
    assert recovery.state(wave, SILENCE) == "damaged"
    wave.remove()
    assert mended(lake) == (0, 0) and staging(lake) == []


def test_half_an_audit_is_made_again(lake):
    wave = put_down(lake, good=2, broken=0)
    storage.write(wave.path("audited.json"), b'{"sc')
    assert mended(lake) == (1, 0) and len(of_wave(lake, wave)) == 2


def test_half_a_note_of_why_a_wave_is_held_holds_it(lake):
    wave = put_down(lake, good=2, broken=0)
    storage.write(wave.path("held.json"), b'{"faults')
    (line,) = recover(lake, SILENCE).warnings
    assert f"{wave.path('held.json')}: expected a JSON document" in line and f"waves release {wave.id}" in line
    assert recovery.state(wave, SILENCE) == "held" and of_wave(lake, wave) == []
    assert settle(lake, wave, release=True).landed["scores"].rows == 2


@pytest.mark.parametrize("which", ["files", "quarantine"])
def test_what_is_cut_short_after_its_audit_is_not_published_either(lake, monkeypatch, which):
    """Of rows that were kept and of those that were refused alike: the table would be unreadable."""
    wave = put_down(lake, good=3, broken=1, allowed=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(waves, "publish", dies)
        with pytest.raises(KeyboardInterrupt):
            settle(lake, wave)
    file = getattr(wave.audited()["scores"].staged, which)[0]
    path = Path(table.path(SCORES if which == "files" else QUARANTINE, lake.root), file.name)
    os.truncate(path, file.size // 2)
    found = recover(lake, SILENCE)
    (line,) = found.warnings
    assert f"wave {wave.id} is held: {path}: expected {file.size:,} bytes" in line
    assert of_wave(lake, wave) == [] and of_wave(lake, wave, QUARANTINE) == []


def dies(*_):
    raise KeyboardInterrupt


def test_a_wave_of_another_version_is_told_and_blocks_nobody_else(lake):
    wave = put_down(lake, good=1, broken=0)
    storage.write(wave.path("manifest.json"), b'{"wave_id": "x", "stage": 7, "outputs": [], "labels": []}')
    found = recover(lake, SILENCE)
    (line,) = found.warnings
    assert f"{wave.path('manifest.json')}: expected what this version of deepintuit writes" in line and not found.held
    assert recovery.state(wave, SILENCE) == "damaged"


def test_a_wave_that_cannot_be_settled_is_told_and_tried_again(lake):
    """Given a file with as many bytes as were staged, but not those: its table stays closed, other waves go on."""
    wave, other = put_down(lake, good=4, broken=0), put_down(lake, good=2, broken=0)
    file = Path(table.path(SCORES, lake.root), wave.manifest().outputs[0].files[0].name)
    whole = file.read_bytes()
    file.write_bytes(b"?" * len(whole))
    found = recover(lake, SILENCE)
    (line,) = found.warnings
    assert line.startswith(f"wave {wave.id} could not be settled: ") and f"`deepintuit waves discard {wave.id}`" in line
    assert "\n" not in line and found.held == {("scores", TASK): line} and found.settled == 1
    assert of_wave(lake, wave) == [] and len(of_wave(lake, other)) == 2
    file.write_bytes(whole)
    assert mended(lake) == (1, 0) and len(of_wave(lake, wave)) == 4


def test_a_wave_of_a_run_that_was_fenced_out_is_dropped(lake):
    wave = put_down(lake, good=1, broken=0)
    commit.fence(SCORES, lake.root, wave.run_id)
    assert mended(lake) == (0, 1) and of_wave(lake, wave) == [] and staging(lake) == []


def test_a_wave_that_was_held_for_long_has_its_results_once(lake, monkeypatch):
    wave = put_down(lake, good=1, broken=1)
    assert recover(lake, SILENCE).held
    before = sorted(row["check"] for row in of_wave(lake, wave, QUALITY))
    once = commit.note_once
    # As after 30 days, when the mark of the first note has expired.
    monkeypatch.setattr(
        commit, "note_once", lambda table, root, rows, mark, *rest: once(table, root, rows, f"{mark}!", *rest)
    )
    settle(lake, wave, release=True)
    assert sorted(row["check"] for row in of_wave(lake, wave, QUALITY)) == before != []


def test_staged_files_with_other_rows_than_were_staged_are_not_published(lake):
    wave = put_down(lake, good=2, broken=0)
    manifest = wave.manifest()
    (output,) = manifest.outputs
    wave.seal(
        replace(manifest, outputs=(replace(output, files=(replace(output.files[0], rows=5), *output.files[1:])),))
    )
    with pytest.raises(storage.Damaged, match=r"expected \d staged rows, found 2; they were changed from outside"):
        settle(lake, wave)
    assert of_wave(lake, wave) == []


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

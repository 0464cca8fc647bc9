"""Damage: a file of a staged wave that somebody cut, changed or took away is named, and harms no other wave."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from sealed import LABELS, SILENCE, TASK, mended, of_wave, put_down, staging

from lake import recovery, storage, table, waves
from lake.lease import Lease
from lake.recovery import recover
from lake.waves import Held, Waves, settle
from schemas.decisions import DECISIONS
from schemas.quarantine import QUARANTINE
from schemas.scores import SCORES
from schemas.traces import TRACES


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


def test_a_table_that_goes_away_gets_its_rows_once_it_is_back(lake, tmp_path, monkeypatch):
    """Given a wave that was audited, when its table is moved away before it is published, then that is told, and no more."""
    wave, publish, place = put_down(lake, good=4, broken=0), waves.publish, Path(table.path(SCORES, lake.root))

    def without_it(*arguments):
        place.rename(tmp_path / "aside")
        return publish(*arguments)

    with (
        monkeypatch.context() as patched,
        pytest.raises(table.LakeError, match="expected the table scores, found none"),
    ):
        patched.setattr(waves, "publish", without_it)
        settle(lake, wave)
    assert wave.manifest() is not None
    (tmp_path / "aside").rename(place)
    assert mended(lake) == (1, 0) and len(of_wave(lake, wave)) == 4


def test_a_staged_file_that_is_gone_holds_its_wave_too(lake, cut_short):
    wave, file = cut_short
    file.unlink()
    (line,) = recover(lake, SILENCE).warnings
    assert f"wave {wave.id} is held: {file}: expected " in line and "found 0" in line


def test_an_expendable_wave_that_was_cut_short_keeps_nothing_closed(lake, cut_short):
    wave, _ = cut_short
    wave.seal(replace(wave.manifest(), expendable=True))
    found = recover(lake, SILENCE)
    assert (found.held, found.discarded, wave.manifest()) == ({}, 1, None) and "it was dropped" in found.warnings[0]


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


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (b'{"wave_id": "sc', "expected a JSON document, found 15 bytes"),
        (
            b'{"wave_id": "x", "stage": 7, "outputs": [], "labels": []}',
            "expected what this version of deepintuit writes",
        ),
    ],
    ids=["half", "another_version"],
)
def test_a_manifest_that_cannot_be_read_is_told_and_blocks_nobody_else(lake, found, said):
    wave = put_down(lake, good=1, broken=0)
    storage.write(wave.path("manifest.json"), found)
    recovered = recover(lake, SILENCE)
    (line,) = recovered.warnings
    assert f"{wave.path('manifest.json')}: {said}" in line and not recovered.held
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

"""What runs that died left behind is rolled forward by the next run, whichever it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from lake import lease, storage
from lake.catalog import Lake
from lake.commit import Fenced
from lake.listing import walk
from lake.staging import Wave, run_folder, staged_waves
from lake.waves import Held, Superseded, held_message, settle


@dataclass
class Recovered:
    """settled, discarded: waves. held: by (table, task) why nothing may enter it. warnings: for people."""

    settled: int = 0
    discarded: int = 0
    held: dict[tuple[str, str], str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Runs:
    """Ids of the runs that have a folder in staging. unknown: nobody can say whose it is, nor that it is abandoned yet."""

    living: list[str]
    dead: list[str]
    unknown: list[str]


def runs_by_life(root: str, silence_seconds: float) -> Runs:
    """Who is at work in this lake's staging and who has died there.

    A folder without a lease that can be read is nobody's once nothing in it has changed for as long as a lease lasts.
    """
    runs = Runs([], [], [])
    for run_id in storage.children(storage.join(root, "staging")):
        try:
            record = lease.read(root, run_id)
        except storage.Damaged:
            record = None
        if record is not None:
            (runs.living if lease.alive(record, silence_seconds) else runs.dead).append(run_id)
        else:
            (runs.dead if _silent(root, run_id, silence_seconds) else runs.unknown).append(run_id)
    return runs


def _silent(root: str, run_id: str, silence_seconds: float) -> bool:
    try:
        newest = max(entry.modified_at.timestamp() for entry in walk(run_folder(root, run_id)))
    except (FileNotFoundError, ValueError):  # nothing in it
        return True
    return time.time() - newest >= silence_seconds


def recover(lake: Lake, silence_seconds: float) -> Recovered:
    """Roll forward what dead runs left: sealed waves are settled, others dropped; those a gate holds stay and are told.

    A wave whose files were damaged is held like one whose rows are: a person decides, and nothing else has to wait.
    """
    found = Recovered()
    runs = runs_by_life(lake.root, silence_seconds)
    for run_id in runs.unknown:
        found.warnings.append(
            f"{run_folder(lake.root, run_id)}: no lease that can be read tells whose this is; it is left alone until "
            f"nothing in it has changed for {silence_seconds:g} s"
        )
    for run_id in runs.dead:
        for wave in staged_waves(lake.root, run_id):
            _roll_forward(lake, wave, found)
        if not staged_waves(lake.root, run_id):
            remove_run(lake.root, run_id)
    return found


def _roll_forward(lake: Lake, wave: Wave, found: Recovered) -> None:
    try:
        manifest = wave.manifest()
        if manifest is None:
            storage.delete(wave.folder)
            found.discarded += 1
            return
        faults = wave.faults()
        if not faults:
            settle(lake, wave)
            found.settled += 1
            return
    except Superseded:  # two runs may recover the same wave at once: the other one was quicker
        return
    except Held as error:
        _block(wave, str(error), found)
        return
    except Fenced:  # `maintain` has taken its files for nobody's
        wave.remove()
        found.discarded += 1
        return
    except storage.Damaged as error:
        faults = [str(error)]
        wave.hold(faults)
    except storage.StoreError:  # says nothing of the wave
        raise
    except Exception as error:
        # It may be the wave's files or a full disk: whatever has nothing to do with this wave goes on.
        said = next(iter(str(error).splitlines()), "")[:500]
        message = (
            f"wave {wave.id} could not be settled: {type(error).__name__}: {said}. The next run tries it again; "
            f"`deepintuit waves discard {wave.id}` drops it and makes its work pending again"
        )
        _block(wave, message, found)
        return
    _block(wave, held_message(wave, faults), found)


def _is_expendable(wave: Wave) -> bool:
    try:
        manifest = wave.manifest()
    except storage.Damaged:
        return False
    return manifest is not None and manifest.expendable


def _block(wave: Wave, message: str, found: Recovered) -> None:
    """Nothing may enter this wave's tables before it is settled; an expendable one goes, as nobody waits for it."""
    if _is_expendable(wave):
        wave.remove()
        found.discarded += 1
        found.warnings.append(f"{message}; nobody waits for it: it was dropped")
        return
    found.warnings.append(message)
    try:
        manifest = wave.manifest()
    except storage.Damaged:  # what it was meant for can no longer be told: it blocks nobody
        return
    if manifest is not None:
        found.held |= {(output.table, manifest.task): message for output in manifest.outputs}


def state(wave: Wave, silence_seconds: float) -> str:
    """held | running | staged | unfinished | damaged (its manifest was cut short)"""
    try:
        sealed = wave.manifest() is not None
        record = lease.read(wave.root, wave.run_id)
    except storage.Damaged:
        return "damaged"
    if sealed and wave.faults():
        return "held"
    if record is not None and lease.alive(record, silence_seconds):
        return "running"
    return "staged" if sealed else "unfinished"


def remove_run(root: str, run_id: str) -> None:
    """Remove a run's folder, its lease last: what half a removal leaves is still known as a dead run's."""
    folder = run_folder(root, run_id)
    for name in storage.children(folder):
        if name != lease.FILE:
            storage.delete(storage.join(folder, name))
    storage.delete(folder)

"""Waves: write, audit, publish. The only way rows enter the lake's tables from a stage that costs something.

1. write    one stage runs the model and writes Parquet files into the tables' folders, unseen; the manifest seals the wave
2. audit    each table's contract reads those files; those that hold refused rows are written anew, and the result is noted
3. publish  one entry of the log per table names the files: the commit point (see commit.py)
4. record   quarantine, quality and the run's event, each once under the wave's id
5. remove   the wave's folder in staging, manifest first

A kill between any two steps is mended by the next run (recovery.py): a sealed wave goes on from where it was without
running the model; one that was not sealed is dropped and its work is pending again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lake import commit, rates, storage, table
from lake.audit import TWICE, audit
from lake.catalog import Lake
from lake.lease import Lease
from lake.names import wave_name
from lake.staging import Audited, Manifest, Staged, Wave
from lake.write import stage
from schemas.checks import Contract
from schemas.label_set import LabelSet
from schemas.quality import QUALITY
from schemas.quarantine import QUARANTINE
from schemas.runs import RUNS
from schemas.table import Table
from schemas.tables import BY_NAME


class Held(RuntimeError):
    """A gate stopped a wave; it stays staged until somebody decides."""


class Superseded(RuntimeError):
    """Another run took this one for dead and has settled or dropped its work; nothing is lost."""

    @staticmethod
    def of(run_id: str) -> Superseded:
        return Superseded(
            f"run {run_id} stood still for longer than its lease and was taken for dead: another run has gone on with its "
            "work. Nothing is lost; run the job again for what is still pending"
        )


@dataclass(frozen=True)
class Settled:
    """What a wave came to: per table what landed, how many rows were refused by reason; the stage's own counts; and what
    was odd about it."""

    wave_id: str
    landed: dict[str, commit.Landed]
    reasons: dict[str, dict[str, int]]
    counts: dict[str, int]
    doubts: tuple[str, ...] = ()

    def refused(self, table: Table) -> int:
        return sum(self.reasons[table.name].values())


def settle(lake: Lake, wave: Wave, release: bool = False) -> Settled:
    """Steps 2 to 5 of a sealed wave. Raises Superseded if it is gone, Held if a gate fails and nobody has released it."""
    manifest = wave.manifest()
    if manifest is None:
        raise Superseded(f"{wave.path('manifest.json')} is gone: another run has settled the wave {wave.id}")
    audited = _audited_before(lake, wave)
    if audited is None:
        audited = {output.table: audit_output(lake, wave, manifest, output) for output in manifest.outputs}
        wave.note_audit(audited)
    if not release:
        gate(lake, wave, manifest, audited)
    landed = publish(lake, wave, audited)
    record(lake, wave, manifest, audited, landed)
    wave.remove()
    reasons = {name: found.staged.reasons for name, found in audited.items()}
    return Settled(wave.id, landed, reasons, manifest.counts, tuple(_failed(audited, "warn")))


def _audited_before(lake: Lake, wave: Wave) -> dict[str, Audited] | None:
    """What an earlier run made of the wave, if it came so far. Raises storage.Damaged where its files changed since."""
    try:
        audited = wave.audited()
    except storage.Damaged:  # what is sealed says the same again
        return None
    for found in (audited or {}).values():
        check_files(lake.root, wave, found.staged)
    return audited


def audit_output(lake: Lake, wave: Wave, manifest: Manifest, output: Staged) -> Audited:
    """Step 2 for one table. Raises storage.Damaged where a staged file is not what was staged."""
    contract = BY_NAME[output.table].contract(manifest.labels)
    check_files(lake.root, wave, output)
    wanted = BY_NAME[output.table]
    rows = lake.read_files(wanted, [file.name for file in output.files]) if output.files else None
    kept, results = (output, list[dict[str, Any]]()) if rows is None else _judged(lake, wave, output, rows, contract)
    if rows is not None and manifest.min_rows is not None:
        results += rates.results(lake.root, wanted, manifest.labels, rows, manifest.min_rows)
    refusing = {check.name for check in contract} | {TWICE}
    broken = sum(count for reason, count in kept.reasons.items() if reason in refusing)
    return Audited(kept, broken, tuple(results))


def _judged(
    lake: Lake, wave: Wave, output: Staged, rows: DataFrame, contract: Contract
) -> tuple[Staged, list[dict[str, Any]]]:
    """The staged rows without those that break the contract, and the contract's results."""
    wanted = BY_NAME[output.table]
    found = audit(rows, contract, wanted.key)
    if found.rows != output.kept:
        raise storage.Damaged(
            f"{table.path(wanted, lake.root)}: expected {output.kept} staged rows, found {found.rows}; they were changed "
            f"from outside: `deepintuit waves discard {wave.id}` drops them and makes the work pending again"
        )
    names = {name for name, _ in found.refused}
    if not names:
        return output, found.results
    rewritten = stage(wave, wanted, found.judged.where(F.col("file_name").isin(*names)))
    clean = tuple(file for file in output.files if file.name.rpartition("/")[2] not in names)
    reasons = output.reasons | {r: output.reasons.get(r, 0) + n for r, n in rewritten.reasons.items()}
    quarantine = output.quarantine + rewritten.quarantine
    return replace(output, files=clean + rewritten.files, quarantine=quarantine, reasons=reasons), found.results


def check_files(root: str, wave: Wave, output: Staged) -> None:
    """Raises storage.Damaged where a staged file is missing or has another size than was staged."""
    for wanted, files in ((BY_NAME[output.table], output.files), (QUARANTINE, output.quarantine)):
        for file in files:
            uri = storage.join(table.path(wanted, root), file.name)
            try:
                size = storage.entry(uri).size
            except FileNotFoundError:
                size = 0
            if size != file.size:
                raise storage.Damaged(
                    f"{uri}: expected {file.size:,} bytes as the wave {wave.id} staged them, found {size:,}: put the file "
                    f"back, or `deepintuit waves discard {wave.id}` drops the wave and makes its work pending again"
                )


def gate(lake: Lake, wave: Wave, manifest: Manifest, audited: dict[str, Audited]) -> None:
    """Raises Held where surely too many rows broke their contract, or where its rows together are not what they should be.
    The reason stays beside the wave, for a person to decide; an expendable one is for the caller to drop."""
    faults = [
        f"{name}: {found.broken} of {found.staged.rows} rows broke the contract, more than {manifest.max_refused:.0%} "
        f"({'; '.join(e['check'] for e in found.results if not e['success'] and e['severity'] == 'refuse')})"
        for name, found in audited.items()
        if rates.surely_more(found.broken, found.staged.rows, manifest.max_refused)
    ]
    faults += _failed(audited, "stop")
    if faults:
        note_quality(lake, wave, audited)
        if not manifest.expendable:
            faults.append(f"look at it with `deepintuit waves list`, then {wave.remedy}")
            wave.hold(faults)
        raise Held(held_message(wave, faults))


def _failed(audited: dict[str, Audited], severity: str) -> list[str]:
    return [
        f"{name}{' of ' + entry['about'] if entry['about'] else ''}: {entry['expected']} ({entry['check']})"
        for name, found in audited.items()
        for entry in found.results
        if not entry["success"] and entry["severity"] == severity
    ]


def held_message(wave: Wave, faults: list[str]) -> str:
    return f"wave {wave.id} is held: {'; '.join(faults)}"


def publish(lake: Lake, wave: Wave, audited: dict[str, Audited]) -> dict[str, commit.Landed]:
    """Step 3: the kept rows of each table, in the order in which the job named them."""
    landed = {}
    for name, found in audited.items():
        kept = found.staged
        landed[name] = commit.append(
            BY_NAME[name], lake.root, kept.files, f"{wave.id}/{name}", wave.id, missing_at=kept.missing_at
        )
    return landed


def record(
    lake: Lake, wave: Wave, manifest: Manifest, audited: dict[str, Audited], landed: dict[str, commit.Landed]
) -> None:
    """Step 4: side rows, each set once under the wave's id; a refusal that a run beside this one has noted, not again."""
    for name, of in audited.items():
        if refused := of.staged.quarantine:
            mark, since = f"{wave.id}/{QUARANTINE.name}/{name}", of.staged.refused_at
            commit.append_new(QUARANTINE, lake.root, refused, mark, wave.id, ("table", "row_key"), since)
    note_quality(lake, wave, audited)
    counts = dict(manifest.counts)
    for name, found in landed.items():
        counts |= {
            f"{name}_landed": found.rows,
            f"{name}_known": found.known,
            f"{name}_refused": sum(audited[name].staged.reasons.values()),
            "collisions": counts.get("collisions", 0) + found.collisions,
        }
    event = {
        "run_id": wave.run_id,
        "event": f"wave {wave.name}",
        "job": manifest.job,
        "task": manifest.task,
        "at": datetime.now(UTC),
        "seconds": manifest.seconds,
        "versions": list(manifest.versions.items()),
        "counts": list(counts.items()),
    }
    commit.note_once(RUNS, lake.root, [event], f"{wave.id}/{RUNS.name}", wave.id)


def note_quality(lake: Lake, wave: Wave, audited: dict[str, Audited]) -> None:
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {"wave_id": wave.id, "table": name, "checked_at": now, **result}
        for name, found in audited.items()
        for result in found.results
    ]
    # A held wave's results were noted when it was held, perhaps so long ago that their mark is gone.
    land = commit.append if wave.faults() else commit.append_once
    commit.note_once(QUALITY, lake.root, rows, f"{wave.id}/{QUALITY.name}", wave.id, land)


# What a stage stages in a wave: the rows for each table, in the order in which to publish them, and its own counts.
Work = tuple[list[Staged], dict[str, int]]


class Waves:
    """The waves of one run: numbered, written under its lease, kept away from tables that a held wave blocks.

    held: by (table, task), what a person has to decide first. warn: told what is odd about a wave that is published.
    """

    def __init__(
        self,
        lake: Lake,
        lease: Lease,
        job: str,
        task: str,
        labels: LabelSet,
        max_refused: float,
        held: dict[tuple[str, str], str],
        min_rows: int = 1,
        warn: Callable[[str], None] = lambda doubt: None,
    ) -> None:
        self._lake, self._lease, self._held, self._count = lake, lease, held, 0
        self._job, self._task, self._labels, self._warn = job, task, labels, warn
        self._max_refused, self._min_rows, self._expendable = max_refused, min_rows, False

    def must_be_open(self, *tables: Table) -> None:
        """Raises Held where a wave that a gate stopped waits to enter one of these tables."""
        for wanted in tables:
            if message := self._held.get((wanted.name, self._task)):
                raise Held(message)

    @contextmanager
    def expendable(self) -> Iterator[None]:
        """What is made meanwhile is dropped where a gate stops it, even by the run that finds it when this one has died:
        nobody has to decide about it, and it blocks nothing."""
        self._expendable = True
        try:
            yield
        finally:
            self._expendable = False

    def make(self, write: Callable[[Wave], Work], versions: dict[str, str], rated: bool = True) -> Settled:
        """All five steps of one more wave; rated: whether its rows together have to be as they were before. Raises Held,
        Superseded, storage.StoreError."""
        self._count += 1
        wave, began = Wave(self._lake.root, self._lease.run_id, wave_name(self._count)), time.monotonic()
        outputs, counts = write(wave)
        self.must_be_open(*[BY_NAME[output.table] for output in outputs])
        if not self._lease.held():
            raise Superseded.of(self._lease.run_id)
        wave.seal(
            Manifest(
                wave_id=wave.id,
                job=self._job,
                task=self._task,
                labels=self._labels,
                max_refused=self._max_refused,
                outputs=tuple(outputs),
                counts=counts,
                versions=versions,
                seconds=time.monotonic() - began,
                min_rows=self._min_rows if rated else None,
                expendable=self._expendable,
            )
        )
        try:
            settled = settle(self._lake, wave)
        except Held as error:
            if not self._expendable:
                raise
            wave.remove()
            raise Held(f"{error}; it was dropped") from None
        for doubt in settled.doubts:
            self._warn(f"wave {wave.id}: {doubt}")
        return settled

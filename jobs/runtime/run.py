"""One run of one job: what it was asked (settings, budget), the lake at hand, its waves, and its own record."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from conf.sections import Settings
from jobs.runtime import session
from jobs.runtime.budget import Budget
from jobs.runtime.engine_workers import EngineWorkers
from jobs.runtime.errors import Doubted, UsageError, explain
from jobs.runtime.record import Record
from lake import catalog, recovery, storage
from lake.commit import append, note_once
from lake.lease import Lease
from lake.staging import run_folder, scratch, staged_waves
from lake.waves import Held, Superseded, Waves
from models import identity
from schemas.label_set import LabelSet
from schemas.table import Table


class Run:
    """A context manager around what the job does: inside it the run has a lease, and everything dead is mended.

    Jobs that are no run use it without entering: they have no lease, no row in `runs`, no document at their end.
    """

    waves: Waves  # from entering on

    def __init__(self, job: str, settings: Settings, budget: Budget | None = None, quiet: bool = False) -> None:
        self.job, self.budget = job, budget or Budget()
        self.task, self.labels = settings.task, tuple(settings.labels.labels)
        self.label_set = LabelSet(self.labels, settings.labels.mode)
        root = storage.absolute(settings.lake.root)
        self.lake = catalog.Lake(root, lambda: session.start(job, settings.spark))
        self.settings = _with_model(settings, self.lake)
        self.record = Record(job, self.task, root, quiet)
        self.engines = EngineWorkers(lambda: self.lake.spark, self.record.warn)
        self._lease: Lease | None = None
        self._has_scratch = False

    def __enter__(self) -> Run:
        root, silence = self.lake.root, self.settings.waves.lease_seconds
        # Only what brings the first rows in makes a lake: elsewhere a mistyped lake.root would look like success.
        (catalog.create_all if self.job in ("ingest", "import-traces") else catalog.require)(root)
        if others := recovery.runs_by_life(root, silence).living:
            self.record.say(
                f"also at work on this lake: {', '.join(others)}; work that both take on is done twice and kept once"
            )
        # From before its first row until after its last one: of a run without a lease `maintain` takes files for lost.
        self._lease = Lease(root, self.record.run_id, self.job, silence)
        try:
            self.record.note("started")
            found = recovery.recover(self.lake, silence)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        for warning in found.warnings:
            self.record.warn(warning)
        mended = {"waves_recovered": found.settled, "waves_discarded": found.discarded}
        self.record.add({name: count for name, count in mended.items() if count})
        waves = self.settings.waves
        self.waves = Waves(
            self.lake,
            self._lease,
            self.job,
            self.task,
            self.label_set,
            waves.max_refused,
            found.held,
            waves.min_rows,
            self.record.warn,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engines.close()
        if self._lease is None:
            return
        self._lease.close()
        cause = self._cause(error) if isinstance(error, Exception) else error
        try:
            self._end(cause)
        except Exception as late:  # a run that went well, up to here
            raise self._cause(late) from late
        with suppress(storage.StoreError):
            # A sealed wave outlives a run that failed after it: the next run publishes it.
            if not any(wave.manifest() for wave in staged_waves(self.lake.root, self.record.run_id)):
                recovery.remove_run(self.lake.root, self.record.run_id)
        if cause is not None and cause is not error:
            raise cause from error

    def _cause(self, error: Exception) -> Exception:
        """What stopped the run, whatever it ran into for it."""
        if isinstance(error, (Held, Doubted, UsageError)):
            return error
        if catalog.is_away(self.lake.root):
            return storage.StoreError(
                f"{self.lake.root}: the lake went away in the middle of the run: bring it back; what is staged is published "
                f"by the next run, the rest is pending again ({explain(error)[0].splitlines()[0][:200]})"
            )
        if self._lease is not None and not self._lease.held() and not isinstance(error, Superseded):
            return Superseded.of(self.record.run_id)  # the files that it worked with were cleaned up after it
        return error

    def _end(self, error: BaseException | None) -> None:
        """The run's last row."""
        if error is None:
            self.record.note("deferred" if self.record.deferred else "finished")
            return
        message = explain(error)[0].splitlines()[0][:500]
        with suppress(Exception):  # the first failure is the one to report, whatever broke with it
            self.record.note("held" if isinstance(error, Held) else "failed", message)

    def path(self, name: str) -> str:
        """A place for this run's own scratch data; gone when it ends."""
        self._has_scratch = True
        return scratch(self.lake.root, self.record.run_id, name)

    def drop_scratch(self) -> None:
        """For jobs that are no run: what they kept to themselves goes when they end."""
        if self._has_scratch:
            storage.delete(run_folder(self.lake.root, self.record.run_id))

    def register(self, table: Table, id: str, value: dict[str, Any]) -> None:
        """Note in `recipes` or `scorers`, once, what an id stands for."""
        key = table.key[0]
        row = {key: id, "task": self.task, "json": identity.canonical(value), "created_at": datetime.now(UTC)}
        note_once(table, self.lake.root, [row], f"{table.name}/{id}", self.record.note_id, land=append)


def _with_model(settings: Settings, lake: catalog.Lake) -> Settings:
    """model.path as a folder, where it is the name or id of a registered model."""
    if os.sep in settings.model.path:  # no name has one: nobody has to ask the lake
        return settings
    found = lake.models.find(settings.task, settings.model.path)
    if found is None:
        return settings
    model = settings.model.model_copy(update={"path": str(storage.local_path(found) or found)})
    return settings.model_copy(update={"model": model})

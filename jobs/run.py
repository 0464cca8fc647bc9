"""What every job has at hand: settings, session, lake, registry, a budget of time and videos, and a line in `runs`."""

from __future__ import annotations

import re
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from conf.settings import Settings
from jobs import session, staging
from jobs.lease import Lease
from models import identity, storage
from models.registry import Registry
from schemas import lake
from schemas.runs import RUNS
from schemas.table import Table, note_once, read


class UsageError(ValueError):
    """The person or the configuration asked for something that cannot be done; the message says what to do instead."""


@dataclass(frozen=True)
class Budget:
    """How much a run may take on: at most so many videos, and no new wave that would end after the deadline."""

    max_videos: int | None = None
    ends_at: datetime | None = None

    def seconds_left(self) -> float | None:
        """Seconds before the deadline, 0 once it is over; None without one."""
        return None if self.ends_at is None else max(0.0, (self.ends_at - datetime.now(UTC)).total_seconds())

    def allows(self, seconds: float) -> bool:
        """Whether work of this length, started now, ends before the deadline."""
        return self.ends_at is None or datetime.now(UTC) + timedelta(seconds=seconds) <= self.ends_at


def parse_deadline(text: str, now: datetime) -> datetime:
    """ "90m", "2h", "45s" from now, or the next "06:30" by the local clock. Raises UsageError for anything else."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text):
        return now + timedelta(seconds=float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]])
    if match := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text):
        local = now.astimezone().replace(tzinfo=None)  # naive: days are as long as the local clock makes them
        wanted = local.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
        return (wanted if wanted > local else wanted + timedelta(days=1)).astimezone(UTC)
    raise UsageError(f"--deadline {text}: expected a length such as 90m, 2h or 45s, or a time of day such as 06:30")


@dataclass
class Run:
    """One run of one job. `counts` and `versions` end in its terminal row and in the last line it prints."""

    job: str
    settings: Settings
    budget: Budget = field(default_factory=Budget)
    quiet: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    deferred: bool = False

    def __post_init__(self) -> None:
        now = datetime.now(UTC)
        self.started = time.monotonic()
        self.run_id = f"{self.job}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.root = storage.absolute(self.settings.lake.root)
        self.task = self.settings.task
        self.labels = tuple(self.settings.labels.labels)
        self._lease: Lease | None = None
        self._waves = 0

    @cached_property
    def spark(self) -> SparkSession:
        return session.start(self.job, self.settings.spark)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.root)

    def __enter__(self) -> Run:
        # Only what brings the first files in makes a lake: elsewhere a mistyped lake.root would look like success.
        (lake.create_all if self.job == "ingest" else lake.require)(self.root)
        self.record("started")
        silence = self.settings.waves.lease_seconds
        if others := staging.runs_by_life(self.root, silence)[0]:
            self.say(
                f"also at work on this lake: {', '.join(others)}; work that both take on is done twice and kept once"
            )
        self._lease = Lease(staging.run_folder(self.root, self.run_id), self.job, silence)
        try:
            recovered = staging.recover(self.spark, self.root, silence)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        self.add({name: count for name, count in recovered.items() if count})
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._lease is not None:
            self._lease.close()
            # A sealed wave outlives a run that failed after it: the next run publishes it.
            if not any(wave.manifest() for wave in staging.staged_waves(self.root, self.run_id)):
                staging.remove_run(self.root, self.run_id)
        if error is None:
            self.record("deferred" if self.deferred else "finished")
        elif isinstance(error, staging.Held):
            self.record("held", str(error))
        else:
            with suppress(Exception):  # the first failure is the one to report, whatever broke with it
                self.record("failed", f"{kind.__name__}: {error}".splitlines()[0][:500])

    def record(self, event: str, message: str | None = None) -> None:
        """One row of `runs`."""
        row = {
            "run_id": self.run_id,
            "event": event,
            "job": self.job,
            "task": self.task,
            "at": datetime.now(UTC),
            "seconds": time.monotonic() - self.started,
            "versions": {key: value for key, value in self.versions.items() if value is not None},
            "counts": {key: int(value) for key, value in self.counts.items()},
            "message": message,
        }
        note_once(RUNS, self.root, [row], f"{self.run_id}/{event}")

    def register(self, table: Table, id: str, value: dict[str, Any]) -> None:
        """Note in `recipes` or `scorers`, once, what an id stands for."""
        key = table.key[0]
        row = {key: id, "task": self.task, "json": identity.canonical(value), "created_at": datetime.now(UTC)}
        note_once(table, self.root, [row], f"{table.name}/{id}")

    def read(self, table: Table) -> DataFrame:
        return read(self.spark, table, self.root)

    def view(self, name: str) -> DataFrame:
        """A view of the lake by name, as of now."""
        return lake.view(self.spark, self.root, name, self.registry.live_rows())

    def next_wave(self) -> staging.Wave:
        self._waves += 1
        return staging.Wave(self.root, self.run_id, f"w{self._waves:05d}")

    def manifest(
        self, wave: staging.Wave, outputs: list[staging.Output], counts: dict[str, int] | None = None
    ) -> staging.Manifest:
        return staging.Manifest(
            wave_id=wave.id,
            run_id=self.run_id,
            job=self.job,
            task=self.task,
            labels=self.labels,
            max_refused=self.settings.waves.max_refused,
            outputs=tuple(outputs),
            counts=counts or {},
            versions=dict(self.versions),
        )

    def add(self, counts: dict[str, int]) -> None:
        """Add to this run's counts."""
        for key, value in counts.items():
            self.counts[key] = self.counts.get(key, 0) + value

    def say(self, text: str) -> None:
        if not self.quiet:
            print(f"[{self.job}] {text}", flush=True, file=sys.stderr)

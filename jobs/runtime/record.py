"""What a run says of itself: lines for people while it works, rows of the table `runs`, and one JSON document at its end."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lake.commit import note_once
from lake.names import wave_id
from models.language.terminal import harmless
from schemas.runs import RUNS


class Record:
    """One run's own row. counts, versions and results end in its terminal row and in the document it prints last.

    deferred: whether work is left for the next run, because the budget ended first.
    """

    def __init__(self, job: str, task: str, root: str, quiet: bool) -> None:
        self.job, self.task, self.quiet, self._root = job, task, quiet, root
        self.run_id = f"{job}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.counts: dict[str, int] = {}
        self.versions: dict[str, str] = {}
        self.results: dict[str, Any] = {}
        self.deferred = False
        self._began = time.monotonic()

    @property
    def note_id(self) -> str:
        """Stands where a wave's id does in the names of files with this run's notes."""
        return wave_id(self.run_id, 0)

    def add(self, counts: Mapping[str, int]) -> None:
        """Add to this run's counts."""
        for key, value in counts.items():
            self.counts[key] = self.counts.get(key, 0) + value

    def say(self, text: str) -> None:
        """A line for people, on standard error."""
        if not self.quiet:
            print(harmless(f"[{self.job}] {text}"), flush=True, file=sys.stderr)

    def warn(self, text: str) -> None:
        """A line that nobody should miss; said also where progress is not wanted."""
        print(harmless(f"[{self.job}] WARNING: {text}"), flush=True, file=sys.stderr)

    def note(self, event: str, message: str | None = None) -> None:
        """One row of `runs`."""
        row = {
            "run_id": self.run_id,
            "event": event,
            "job": self.job,
            "task": self.task,
            "at": datetime.now(UTC),
            "seconds": time.monotonic() - self._began,
            "versions": list(self.versions.items()),
            "counts": [(key, int(value)) for key, value in self.counts.items()],
            "message": message,
        }
        note_once(RUNS, self._root, [row], f"{self.run_id}/{event}", self.note_id)

    def document(self) -> str:
        """The last line of standard output of a job that writes to the lake."""
        said = {"run_id": self.run_id, "counts": self.counts, "versions": self.versions, "results": self.results}
        return json.dumps(said)

"""Progress out of running tasks: each task rewrites one small JSON file that the driver looks at."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from lake import storage

_INTERVAL_S = 1.0


@dataclass
class TaskProgress:
    """Called by a task with its totals so far; writes at most once a second, and a task tried again overwrites."""

    folder: str
    _last: float = 0.0
    _totals: dict[str, int] = field(default_factory=dict)

    def __call__(self, videos: int, tokens: int) -> None:
        self._totals = {"videos": videos, "tokens": tokens}
        if time.monotonic() - self._last >= _INTERVAL_S:
            self.ended()

    def ended(self) -> None:
        """Called once a task has no more to do: the last second's videos count, too."""
        if self._totals:
            self._last = time.monotonic()
            self._put(self._uri(), json.dumps(self._totals).encode())

    def engine_started(self) -> None:
        """Called once by a process that constructs an engine for this stage."""
        self._put(storage.join(self.folder, f"engine-{socket.gethostname()}-{os.getpid()}.json"), b"{}")

    @staticmethod
    def _put(uri: str, data: bytes) -> None:
        with suppress(Exception):  # a progress line that is lost must not cost a model run
            storage.write(uri, data)

    def _uri(self) -> str:
        from pyspark import TaskContext

        context = TaskContext.get()
        name = f"task-{context.partitionId()}.json" if context else f"process-{os.getpid()}.json"
        return storage.join(self.folder, name)


def total(folder: str) -> dict[str, int]:
    """Videos and tokens of all tasks together, as last written."""
    sums = {"videos": 0, "tokens": 0}
    for name in storage.children(folder):
        if name.startswith("engine-"):
            continue
        try:
            found = json.loads(storage.read_bytes(storage.join(folder, name)))
        except FileNotFoundError:  # the wave was settled while we looked
            continue
        sums = {key: sums[key] + found[key] for key in sums}
    return sums


def engines(folder: str) -> int:
    """Engines that were constructed for this stage; warm ones of earlier stages do not count."""
    return sum(name.startswith("engine-") for name in storage.children(folder))

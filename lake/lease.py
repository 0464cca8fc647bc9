"""Who works in a run's staging folder, and whether they still live. Says what may be cleaned up; guards no commit."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lake import storage
from lake.staging import run_folder

FILE = "run.json"


def owner() -> dict[str, Any]:
    """This process, told apart from any other before or after it on any host."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": boot(), "pid": pid, "started": start_ticks(pid)}


def alive(record: dict[str, Any], silence_seconds: float, now: float | None = None) -> bool:
    """Whether the run behind a lease record still lives.

    On this host its process is looked up, so that a killed run is known at once; elsewhere the heartbeat decides.
    """
    holder = record["owner"]
    if holder["boot"] and holder["host"] == socket.gethostname() and holder["boot"] == boot():
        return start_ticks(holder["pid"]) == holder["started"]
    return (time.time() if now is None else now) - record["heartbeat"] < silence_seconds


def boot() -> str:
    """Within which process ids mean the same: this start of the machine and this container; "" where nobody can say."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """Clock ticks after boot at which the process started; None if there is no such process (or it is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


class Lease:
    """Keeps `<run folder>/run.json` fresh from a background thread until closed, or until somebody takes it away."""

    def __init__(self, root: str, run_id: str, job: str, silence_seconds: float):
        self.run_id = run_id
        self._uri = storage.join(run_folder(root, run_id), FILE)
        self._record = {"job": job, "owner": owner(), "started_at": time.time()}
        self._stop = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._run, args=(silence_seconds / 4,), daemon=True, name="lease")
        self._thread.start()

    def held(self) -> bool:
        """False once another run took this one for dead and removed its folder."""
        return storage.exists(self._uri)

    def _beat(self) -> None:
        storage.write(self._uri, json.dumps(self._record | {"heartbeat": time.time()}).encode())

    def _run(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            with suppress(Exception):  # a store that is away for a moment: the next beat is soon
                if not self.held():  # a beat would bring back what was taken away
                    return
                self._beat()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def read(root: str, run_id: str) -> dict[str, Any] | None:
    """The lease record of a run; None if it has none (yet). Raises storage.Damaged."""
    try:
        return storage.read_json(storage.join(run_folder(root, run_id), FILE))
    except FileNotFoundError:
        return None

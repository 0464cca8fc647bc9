"""What tests share that is no fixture: a lake with its jobs, and the command line in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SHARED = PROJECT.parent / "shared"


class Lake:
    """A lake of a test's own and the jobs to fill it with; `job` returns what the finished run says of itself."""

    def __init__(self, root: Path, *overrides: str, conf: str = "conf/local.yaml"):
        self.root, self.overrides, self.conf = root, overrides, conf

    def settings(self, *overrides: str):
        from conf.settings import load

        return load(self.conf, [f"lake.root={self.root}", *self.overrides, *overrides])

    def job(self, name: str, *overrides: str, max_videos: int | None = None, ends_at=None, **arguments):
        from jobs.runtime import cli
        from jobs.runtime.budget import Budget

        return cli.perform(name, self.settings(*overrides), Budget(max_videos, ends_at), quiet=True, **arguments).record

    def at_hand(self):
        """The lake as a job has it at hand."""
        from jobs.runtime.run import Run

        return Run("tests", self.settings()).lake

    def table(self, name: str):
        """The rows of a table as an Arrow table, read by delta-rs: not the engine that wrote it."""
        from deltalake import DeltaTable

        return DeltaTable(str(self.root / "tables" / name)).to_pyarrow_table()

    def rows(self, name: str) -> list[dict]:
        return self.table(name).to_pylist()


def deepintuit(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The command line in a process of its own, as a person or a scheduler runs it."""
    return subprocess.run(
        [sys.executable, "-m", "jobs.runtime.cli", *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def free_port() -> int:
    """A port of this host that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def last_json(output: str) -> dict:
    """The document on the last line of standard output."""
    return json.loads(output.strip().splitlines()[-1])

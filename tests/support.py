"""What tests share that is no fixture: a lake with its jobs, and the command line in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SHARED = PROJECT.parent / "shared"


class Lake:
    """A lake of a test's own and the jobs to fill it with; `job` returns the finished run."""

    def __init__(self, root: Path, *overrides: str, conf: str = "conf/local.yaml"):
        self.root, self.overrides, self.conf = root, overrides, conf

    def settings(self, *overrides: str):
        from conf.settings import load

        return load(self.conf, [f"lake.root={self.root}", *self.overrides, *overrides])

    def job(self, name: str, *overrides: str, max_videos: int | None = None, ends_at=None, **arguments):
        from jobs.run import Budget, Run

        from jobs import cli

        module = cli.module_of(name)
        defaults = vars(self._parse(module))
        with Run(name, self.settings(*overrides), Budget(max_videos, ends_at), quiet=True) as run:
            module.run(run, argparse.Namespace(**{**defaults, **arguments}))
        return run

    @staticmethod
    def _parse(module) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        needed = [action for action in parser._actions if action.required]
        return argparse.Namespace(
            **{a.dest: a.default for a in parser._actions if a.dest != "help" and a not in needed}
        )

    def table(self, name: str):
        """The rows of a table as an Arrow table, read by delta-rs: not the engine that wrote it."""
        from deltalake import DeltaTable

        return DeltaTable(str(self.root / "tables" / name)).to_pyarrow_table()

    def rows(self, name: str) -> list[dict]:
        return self.table(name).to_pylist()


def deepintuit(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The command line in a process of its own, as a person or a scheduler runs it."""
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def last_json(output: str) -> dict:
    """The document on the last line of standard output."""
    return json.loads(output.strip().splitlines()[-1])

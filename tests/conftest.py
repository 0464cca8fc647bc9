"""One Spark session for a test process, real clips, and a way to run jobs on a lake of one's own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SHARED = PROJECT.parent / "shared"


@pytest.fixture(scope="session")
def spark():
    from conf.settings import load
    from jobs import session

    # Workers unpickle functions that tests pass in, so they need the tests' folders too.
    folders = [str(PROJECT), *(str(PROJECT / "tests" / room) for room in ("jobs", "udfs"))]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    started = session.start("tests", load("conf/local.yaml").spark)
    started.sparkContext.setLogLevel("OFF")
    yield started
    started.stop()


@pytest.fixture(scope="session")
def clip_factory(tmp_path_factory):
    """make(subset, count) -> folder with that many real H.264 clips of the benchmark and their labels.csv."""
    from models.handwriting import clips

    made: dict[tuple[str, int], Path] = {}

    def make(subset: str, count: int) -> Path:
        if (subset, count) not in made:
            made[subset, count] = tmp_path_factory.mktemp(f"{subset}-{count}")
            clips.generate(made[subset, count], subset, count, seed=0)
        return made[subset, count]

    return make


@pytest.fixture(scope="session")
def shared():
    """The folder shared/ beside the project; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: this test looks at real files that are not part of the project")
    return SHARED


class Lake:
    """A lake of a test's own and the jobs to fill it with; `job` returns the finished run."""

    def __init__(self, root: Path, *overrides: str):
        self.root, self.overrides = root, overrides

    def settings(self, *overrides: str):
        from conf.settings import load

        return load("conf/local.yaml", [f"lake.root={self.root}", *self.overrides, *overrides])

    def job(self, name: str, *overrides: str, max_videos: int | None = None, **arguments):
        from jobs import cli
        from jobs.run import Budget, Run

        module = cli.module_of(name)
        defaults = vars(self._parse(module))
        with Run(name, self.settings(*overrides), Budget(max_videos), quiet=True) as run:
            module.run(run, argparse.Namespace(**{**defaults, **arguments}))
        return run

    @staticmethod
    def _parse(module) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        needed = [action for action in parser._actions if action.required]
        return argparse.Namespace(**{a.dest: a.default for a in parser._actions if a.dest != "help" and a not in needed})

    def table(self, name: str):
        """The rows of a table as an Arrow table, read by delta-rs: not the engine that wrote it."""
        from deltalake import DeltaTable

        return DeltaTable(str(self.root / "tables" / name)).to_pyarrow_table()

    def rows(self, name: str) -> list[dict]:
        return self.table(name).to_pylist()


@pytest.fixture
def lake(spark, tmp_path):
    return Lake(tmp_path / "lake")


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

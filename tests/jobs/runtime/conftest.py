"""A command in a process of its own that is in the middle of its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support import PROJECT

from lake.catalog import create_all

# A task that leaves a file to say that it runs, and then goes on for longer than any test waits.
_QUERY = "SELECT reflect('java.io.File', 'createTempFile', 'inside', '.query'), reflect('java.lang.Thread', 'sleep', 600000L)"


class Command:
    """A running `deepintuit sql`, as a shell starts it: a group of processes with a Python driver and its JVM."""

    def __init__(self, folder: Path):
        create_all(str(folder / "lake"))
        self._folder = folder
        words = ["sql", _QUERY, "--conf", "conf/local.yaml", "--set", f"lake.root={folder / 'lake'}"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jobs.runtime.cli", *words],
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(folder), "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={folder}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until_busy(self) -> None:
        deadline = time.monotonic() + 240
        while not list(self._folder.glob("inside*.query")):
            assert self._process.poll() is None, self._process.communicate()[1]
            assert time.monotonic() < deadline, "the query never began"
            time.sleep(0.1)

    def press_ctrl_c(self) -> None:
        """A terminal tells the whole group, the JVM too."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill_jvm(self) -> None:
        os.kill(self._jvm(), signal.SIGKILL)

    def _jvm(self) -> int:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, _, fields = stat.read_text().rpartition(")")
                if name.endswith("(java") and int(fields.split()[1]) == self._process.pid:
                    return int(stat.parent.name)
        raise LookupError("no JVM below the driver")

    def ended(self) -> tuple[int, str]:
        """Exit code and standard error."""
        _, err = self._process.communicate(timeout=60)
        return self._process.returncode, err

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture
def busy(tmp_path):
    """A Command inside its query."""
    command = Command(tmp_path)
    try:
        command.wait_until_busy()
        yield command
    finally:
        command.end()

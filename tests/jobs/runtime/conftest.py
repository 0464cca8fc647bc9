"""Commands in processes of their own that are in the middle of their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support import PROJECT, Lake

from lake.catalog import create_all

# A task that leaves a file to say that it runs, and then goes on for longer than any test waits.
_QUERY = (
    "SELECT reflect('java.io.File', 'createTempFile', 'inside', '.query'), "
    "reflect('java.lang.Thread', 'sleep', 600000L)"
)


_MAIN = "import sys; from jobs.runtime import cli; sys.exit(cli.main(sys.argv[1:]))"


class Command:
    """A running `deepintuit`, as a shell starts it: a group of processes with a Python driver and its JVM.

    folder: holds its lake and what it would put into the machine's temporary folder.
    """

    def __init__(self, folder: Path, *words: str, before: str = ""):
        """before: Python that the process runs first."""
        self.lake, self._folder = Lake(folder / "lake"), folder
        create_all(str(self.lake.root))
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"{before}\n{_MAIN}", *words, "--set", f"lake.root={self.lake.root}"],
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(folder), "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={folder}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, pattern: str) -> None:
        """Until there is such a file below its folder."""
        deadline = time.monotonic() + 240
        while not list(self._folder.glob(pattern)):
            assert self._process.poll() is None, self._process.communicate()[1]
            assert time.monotonic() < deadline, f"there never was {pattern}"
            time.sleep(0.05)

    def press_ctrl_c(self) -> None:
        """A terminal tells the whole group, the JVM too."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill_jvm(self) -> None:
        os.kill(self._jvm(), signal.SIGKILL)

    def stop_jvm(self) -> None:
        """It stands still, and is there."""
        os.kill(self._jvm(), signal.SIGSTOP)

    def _jvm(self) -> int:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, _, fields = stat.read_text().rpartition(")")
                if name.endswith("(java") and int(fields.split()[1]) == self._process.pid:
                    return int(stat.parent.name)
        raise LookupError("no JVM below the driver")

    def ended(self) -> tuple[int, list[str]]:
        """Exit code and lines of standard error."""
        _, err = self._process.communicate(timeout=60)
        return self._process.returncode, err.splitlines()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture
def started(tmp_path):
    """started(words, before) -> a Command; none of them outlives the test."""
    commands: list[Command] = []

    def start(*words: str, before: str = "") -> Command:
        commands.append(Command(tmp_path, *words, before=before))
        return commands[-1]

    yield start
    for command in commands:
        command.end()


@pytest.fixture
def asking(started):
    """A Command inside a query."""
    return inside_a_query(started)


def inside_a_query(started, before: str = "") -> Command:
    command = started("sql", _QUERY, before=before)
    command.wait_for("inside*.query")
    return command


@pytest.fixture
def impatient(started):
    """A Command inside a query that gives its JVM three seconds to answer."""
    return inside_a_query(started, "from jobs.runtime import pulse; pulse.EVERY_S, pulse.SILENCE_S = 0.2, 3.0")

"""Commands in a process of their own, and what they cost: seconds, bytes read from the lake's tables, memory, Spark jobs.

Bytes: all that read(2) and its kin gave to any process of the job (Python, JVM, workers) from files below tables/, their
logs included, counted inside these processes by a small library (reads.c) that is preloaded. Python's delta-rs and
PyArrow, Spark's Parquet reader and Delta's log are counted alike; bytes read twice count twice. Needs a C compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SLOTS, _SLOT = 64, struct.Struct("64sQQ")  # as reads.c has them

Counts = dict[str, int]  # by lake and table, "<lake>/<table>"; of its log under "<lake>/<table>/_delta_log"


class JobFailed(RuntimeError):
    """A measured job did not end well; the message holds the end of what it said."""


@dataclass(frozen=True)
class Cost:
    """What one command cost, and the JSON document that it printed last.

    read: bytes by table; opened: files in the same way. driver_mb, jvm_mb: peaks. waves: tables, spark_jobs, actions and
    seconds of each.
    """

    seconds: float
    read: Counts
    opened: Counts
    driver_mb: float
    jvm_mb: float
    spark_jobs: int
    actions: int
    waves: list[dict[str, Any]]
    document: dict[str, Any]

    @property
    def bytes_read(self) -> int:
        return sum(self.read.values())


@dataclass(frozen=True)
class Process:
    """What a process with all its commands cost.

    seconds: with the start and the end of the interpreter. cpu_seconds: of all its processes together, which says more than
    seconds where others use the machine, too.
    """

    costs: list[Cost]
    seconds: float
    cpu_seconds: float


def run(lakes: Path, commands: Sequence[Sequence[str]]) -> Process:
    """Run `deepintuit` with these arguments, one command after the other. lakes: the folder that holds the lakes.

    Raises JobFailed.
    """
    with tempfile.TemporaryDirectory(prefix="reads-") as folder:
        figures, counts = Path(folder) / "figures.json", Path(folder) / "counters"
        counts.mkdir()
        environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "LD_PRELOAD": str(library()),
            "READS_ROOT": str(lakes.resolve()),
            "READS_FOLDER": str(counts),
        }
        _adopt_orphans()
        began, before = time.monotonic(), _cpu_of_children()
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.metered", str(figures), json.dumps([list(c) for c in commands])],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
        )
        seconds = time.monotonic() - began
        _wait_for_orphans()
        cpu = _cpu_of_children() - before
        if ended.returncode:
            raise JobFailed(f"{commands}: exit code {ended.returncode}: {ended.stderr[-2000:]}")
        return Process([Cost(**found) for found in json.loads(figures.read_text())], seconds, cpu)


def _adopt_orphans() -> None:
    """Become the parent of the job's processes whose own parent ends first: then nobody's time is lost."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for_orphans() -> None:
    """Wait for those that are ending; others of ours are left alone after a while."""
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            return


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def library() -> Path:
    """reads.c compiled, once for each state of it."""
    source = Path(__file__).with_name("reads.c")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    built = PROJECT / "build" / "bench" / f"reads-{digest}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        aside = built.with_suffix(f".{os.getpid()}")
        compiler = [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC"]
        subprocess.run([*compiler, "-o", str(aside), str(source), "-ldl", "-pthread"], check=True)
        aside.replace(built)
    return built


def counters() -> tuple[Counts, Counts]:
    """Bytes read and files opened so far by all processes of this measurement; called in one of them."""
    read: Counts = {}
    opened: Counts = {}
    for file in Path(os.environ["READS_FOLDER"]).iterdir():
        data = file.read_bytes()
        for slot in range(_SLOTS if len(data) == _SLOTS * _SLOT.size else 0):
            name, size, opens = _SLOT.unpack_from(data, slot * _SLOT.size)
            if name := name.rstrip(b"\0").decode():
                read[name] = read.get(name, 0) + size
                opened[name] = opened.get(name, 0) + opens
    return read, opened


def less(now: Counts, before: Counts) -> Counts:
    """What came in between."""
    return {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}

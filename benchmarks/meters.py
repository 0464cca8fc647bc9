"""One job in a process of its own, and what it cost: seconds, bytes read from the lake's tables, memory, Spark jobs.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SLOTS, _SLOT = 64, struct.Struct("64sQQ")  # as reads.c has them


class JobFailed(RuntimeError):
    """A measured job did not end well; the message holds the end of what it said."""


@dataclass(frozen=True)
class Cost:
    """What one job cost.

    seconds: of the job inside its process; whole_seconds: with the start and the end of the interpreter; cpu_seconds: of all
    its processes together, which says more than seconds where others use the machine, too. read: bytes by
    table, those of its log under <table>/_delta_log; opened: files in the same way. waves: tables, spark_jobs, actions and
    seconds of each. document: what the job printed last.
    """

    seconds: float
    whole_seconds: float
    cpu_seconds: float
    read: dict[str, int]
    opened: dict[str, int]
    driver_mb: float
    jvm_mb: float
    spark_jobs: int
    actions: int
    waves: list[dict[str, Any]]
    document: dict[str, Any]

    @property
    def bytes_read(self) -> int:
        return sum(self.read.values())


def run(root: Path, *arguments: str) -> Cost:
    """Run `deepintuit` with these arguments on the lake at root. Raises JobFailed."""
    with tempfile.TemporaryDirectory(prefix="reads-") as folder:
        figures = Path(folder) / "figures.json"
        counters = Path(folder) / "counters"
        counters.mkdir()
        environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "LD_PRELOAD": str(library()),
            "READS_ROOT": str(root.resolve() / "tables"),
            "READS_FOLDER": str(counters),
        }
        _adopt_orphans()
        began, before = time.monotonic(), _cpu_of_children()
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.metered", str(figures), *arguments],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
        )
        whole = time.monotonic() - began
        if ended.returncode:
            raise JobFailed(f"{' '.join(arguments)}: exit code {ended.returncode}: {ended.stderr[-2000:]}")
        _wait_for_orphans()
        cpu = _cpu_of_children() - before
        read, opened = _counts(counters)
        said = ended.stdout.strip().splitlines()
        document = json.loads(said[-1]) if said and said[-1].startswith('{"') else {}
        found = json.loads(figures.read_text())
    return Cost(whole_seconds=whole, cpu_seconds=cpu, read=read, opened=opened, document=document, **found)


def _adopt_orphans() -> None:
    """Become the parent of the job's processes whose own parent ends first: then nobody's time is lost."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for_orphans() -> None:
    while True:
        try:
            os.wait()
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
        command = [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", aside, source, "-ldl", "-pthread"]
        subprocess.run(command, check=True)
        aside.replace(built)
    return built


def _counts(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes and opened files by table, of all processes together."""
    read: dict[str, int] = {}
    opened: dict[str, int] = {}
    for file in folder.iterdir():
        data = file.read_bytes()
        for slot in range(_SLOTS if len(data) == _SLOTS * _SLOT.size else 0):
            name, size, opens = _SLOT.unpack_from(data, slot * _SLOT.size)
            if name := name.rstrip(b"\0").decode():
                read[name] = read.get(name, 0) + size
                opened[name] = opened.get(name, 0) + opens
    return read, opened

"""The command line as `deepintuit` is, with its figures written to a file at the end: benchmarks/meters.py starts it.

python -m benchmarks.metered FIGURES.json JOB ...
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from jobs.runtime import cli
from lake import waves


def spark_jobs() -> int:
    """Spark jobs that were started so far; 0 where Spark was not needed."""
    context = SparkContext._active_spark_context
    return context._jsc.sc().dagScheduler().numTotalJobs() if context else 0


def actions() -> int:
    """Queries that were executed so far: an action is one, and a write; Spark may run several jobs for it."""
    session = SparkSession._instantiatedSession
    return session._jsparkSession.sharedState().statusStore().executionsCount() if session else 0


def peak_mb(pid: int | str) -> float:
    """The most memory that a process has held, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def counted(commit: Any, noted: list[dict[str, Any]]) -> Any:
    """`Waves.commit` that also notes what each wave cost."""

    def run(self: waves.Waves, *arguments: Any) -> waves.Settled:
        jobs, queries, began = spark_jobs(), actions(), time.monotonic()
        settled = commit(self, *arguments)
        noted.append(
            {
                "tables": list(settled.landed),
                "spark_jobs": spark_jobs() - jobs,
                "actions": actions() - queries,
                "seconds": time.monotonic() - began,
            }
        )
        return settled

    return run


def main() -> int:
    figures, *arguments = sys.argv[1:]
    noted: list[dict[str, Any]] = []
    waves.Waves.commit = counted(waves.Waves.commit, noted)
    began = time.monotonic()
    code = cli.main(arguments)
    seconds = time.monotonic() - began
    gateway = getattr(SparkContext._gateway, "proc", None)
    found = {
        "seconds": seconds,
        "driver_mb": peak_mb("self"),
        "jvm_mb": peak_mb(gateway.pid) if gateway else 0.0,
        "spark_jobs": spark_jobs(),
        "actions": actions(),
        "waves": noted,
    }
    Path(figures).write_text(json.dumps(found))
    return code


if __name__ == "__main__":
    sys.exit(main())

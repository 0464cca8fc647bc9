"""The command line as `deepintuit` is, with figures of what each command cost: benchmarks/meters.py starts it.

python -m benchmarks.metered FIGURES.json '[["nightly", "--conf", ...], ...]'

Several commands share one process and one Spark session. Ends at the first that does not end well.
"""

from __future__ import annotations

import io
import json
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from benchmarks.meters import counters, less
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


def jvm_mb() -> float:
    """The same of this process's JVM; 0 where there is none."""
    process = getattr(SparkContext._gateway, "proc", None)
    return peak_mb(process.pid) if process else 0.0


def counted(make: Any, noted: list[dict[str, Any]]) -> Any:
    """`Waves.make` that also notes what each wave cost."""

    def run(self: waves.Waves, *arguments: Any, **named: Any) -> waves.Settled:
        jobs, queries, began = spark_jobs(), actions(), time.monotonic()
        settled = make(self, *arguments, **named)
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
    figures, commands = Path(sys.argv[1]), json.loads(sys.argv[2])
    make, found = waves.Waves.make, []
    for command in commands:
        noted: list[dict[str, Any]] = []
        waves.Waves.make = counted(make, noted)  # type: ignore[method-assign]
        jobs, queries, (read, opened), said = spark_jobs(), actions(), counters(), io.StringIO()
        began = time.monotonic()
        with redirect_stdout(said):
            code = cli.main(command)
        seconds = time.monotonic() - began
        if code:
            return code
        read_now, opened_now = counters()
        last = (said.getvalue().strip().splitlines() or [""])[-1]
        found.append(
            {
                "seconds": seconds,
                "read": less(read_now, read),
                "opened": less(opened_now, opened),
                "driver_mb": peak_mb("self"),
                "jvm_mb": jvm_mb(),
                "spark_jobs": spark_jobs() - jobs,
                "actions": actions() - queries,
                "waves": noted,
                "document": json.loads(last) if last.startswith('{"') else {},
            }
        )
    figures.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

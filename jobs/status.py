"""status: what an operator asks first - backlog, oldest pending video, waves, refusals, live versions, recent runs.

deepintuit status --conf conf/local.yaml
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from pyspark.sql import functions as F

from jobs import cli, nightly, rollout, waves
from jobs.run import Run
from models.registry import RegistryError
from schemas import lake
from schemas.quarantine import QUARANTINE
from schemas.runs import RUNS
from schemas.traces import TRACES

READS_ONLY = True
TAKES_BUDGET = False


def backlog(run: Run) -> dict[str, Any]:
    """Videos that the next nightly would take on, the rollouts they lack, and since when the oldest waits."""
    waiting = nightly.unscored(run)
    figures = waiting.agg(F.count("*").alias("videos"), F.min("ingested_at").alias("oldest")).first()
    found = {"videos": figures["videos"], "oldest": figures["oldest"] and figures["oldest"].isoformat()}
    try:
        recipe, chosen = nightly.live_versions(run)
    except RegistryError:
        return found
    todo = rollout.pending(
        waiting,
        run.read(TRACES),
        run.read(QUARANTINE),
        recipe.id,
        chosen.manifest["rollouts"],
        run.settings.waves.max_attempts,
    )
    return found | {"rollouts": todo.agg(F.sum(F.size("missing"))).first()[0] or 0}


def run(run: Run, arguments: argparse.Namespace) -> None:
    lake.require(run.root)
    silence = run.settings.waves.lease_seconds
    refusals = run.read(QUARANTINE).groupBy("table", "reason").count().orderBy(F.desc("count"))
    recent = run.read(RUNS).where(~F.col("event").startswith("wave ")).orderBy(F.desc("at")).limit(10)
    try:
        live = run.registry.live(run.task)
    except RegistryError as error:
        live = str(error)
    status = {
        "task": run.task,
        "lake": run.root,
        "live": live,
        "backlog": backlog(run),
        "waves": [{"wave_id": wave.id, "state": waves.state(wave, silence)} for wave in waves.everything(run.root)],
        "refusals": [row.asDict() for row in refusals.collect()],
        "recent_runs": [
            {"run_id": row["run_id"], "event": row["event"], "at": row["at"].isoformat(), "message": row["message"]}
            for row in recent.collect()
        ],
    }
    print(json.dumps(status, indent=2))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """status has nothing to choose."""


def main() -> int:
    return cli.main(["status", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

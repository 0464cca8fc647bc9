"""status: what an operator asks first - backlog, oldest pending video, waves, refusals, live versions, models, recent runs.

deepintuit status --conf conf/local.yaml
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import scorers
from jobs.steps.drift import drift
from jobs.steps.news import news
from jobs.steps.rollouts import missing
from lake import catalog
from lake.recovery import state
from lake.registry import RegistryError
from lake.staging import all_waves
from lake.storage import Damaged
from schemas.quarantine import QUARANTINE
from schemas.runs import RUNS

IS_A_RUN = False
TAKES_BUDGET = False


def backlog(run: Run) -> dict[str, Any]:
    """Videos that the next nightly would take on, the rollouts they lack, and since when the oldest waits."""
    try:
        scorer = scorers.live(run)
    except RegistryError:
        scorer = None
    new = news(run, scorer).scope
    if new is None or not new.count:
        return {"videos": 0, "oldest": None, "rollouts": 0}
    oldest = new.videos.agg(F.min("ingested_at")).collect()[0][0]
    found = {"videos": new.count, "oldest": oldest.isoformat()}
    if scorer is None:
        return found
    todo = missing(run, scorer.recipe, scorer.rollouts, new)
    return found | {"rollouts": todo.agg(F.sum(F.size("missing"))).collect()[0][0] or 0}


def live(run: Run) -> dict[str, Any] | str:
    """The live versions, or why there is none."""
    try:
        return run.lake.registry.live(run.task)
    except (RegistryError, Damaged) as error:
        return str(error)


def moved(run: Run) -> dict[str, Any] | str | None:
    """Whether what is decided still looks like what the live calibrator was judged by, None where nobody knows."""
    try:
        return drift(run, scorers.live(run))
    except RegistryError:
        return None
    except (UsageError, Damaged) as error:
        return str(error)


def shadow(run: Run) -> dict[str, Any] | str | None:
    """What scores beside the live versions, None for nothing, or why it is not known."""
    try:
        return run.lake.registry.shadow(run.task)
    except Damaged as error:
        return str(error)


def run(run: Run, arguments: argparse.Namespace) -> None:
    catalog.require(run.lake.root)
    silence = run.settings.waves.lease_seconds
    refusals = run.lake.read(QUARANTINE).groupBy("table", "reason").count().orderBy(F.desc("count"))
    recent = run.lake.read(RUNS).where(~F.col("event").startswith("wave ")).orderBy(F.desc("at")).limit(10)
    status = {
        "task": run.task,
        "lake": run.lake.root,
        "live": live(run),
        "shadow": shadow(run),
        "models": run.lake.models.aliases(run.task),
        "drift": moved(run),
        "backlog": backlog(run),
        "waves": [{"wave_id": wave.id, "state": state(wave, silence)} for wave in all_waves(run.lake.root)],
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

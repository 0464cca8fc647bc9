"""promote: make a calibrator, with its recipe and the decision rule of the settings, the live versions of the task.

deepintuit promote --conf conf/local.yaml [--calibrator ID]
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from jobs.runtime import cli
from jobs.runtime.run import Run
from jobs.steps import scorers
from schemas.scorers import SCORERS

TAKES_BUDGET = False


def run(run: Run, arguments: argparse.Namespace) -> None:
    manifest = run.lake.registry.calibrator(run.task, arguments.calibrator)
    scorer = scorers.of_manifest(manifest, run.settings.decide, run.label_set)
    run.register(SCORERS, scorer.id, scorer.json)
    live = scorer.versions | {
        "task": run.task,
        "rule": scorer.rule,
        "promoted_at": datetime.now(UTC).isoformat(),
        "run_id": run.record.run_id,
    }
    run.lake.registry.promote(run.task, live)
    run.record.versions |= scorer.versions
    run.record.say(
        f"live for {run.task}: calibrator {live['calibrator_id']} on recipe {live['recipe_id']}, rule {scorer.rule}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calibrator", metavar="ID", help="a registered calibrator; without it, the newest")


def main() -> int:
    return cli.main(["promote", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

"""promote: make a calibrator, with its recipe and the decision rule of the settings, the live versions of the task.

deepintuit promote --conf conf/local.yaml [--calibrator ID]
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from jobs import cli, scorer
from jobs.run import Run
from schemas.scorers import SCORERS

TAKES_BUDGET = False


def run(run: Run, arguments: argparse.Namespace) -> None:
    manifest = run.registry.calibrator(run.task, arguments.calibrator)
    chosen = scorer.of_manifest(manifest, run.settings.decide)
    run.register(SCORERS, chosen.id, chosen.json)
    live = {
        "task": run.task,
        "recipe_id": manifest["recipe_id"],
        "calibrator_id": manifest["calibrator_id"],
        "scorer_id": chosen.id,
        "rule_id": chosen.rule_id,
        "rule": chosen.rule,
        "promoted_at": datetime.now(UTC).isoformat(),
        "run_id": run.run_id,
    }
    run.registry.promote(run.task, live)
    run.versions |= {name: live[name] for name in ("recipe_id", "calibrator_id", "scorer_id", "rule_id")}
    run.say(
        f"live for {run.task}: calibrator {live['calibrator_id']} on recipe {live['recipe_id']}, rule {chosen.rule}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calibrator", metavar="ID", help="a registered calibrator; without it, the newest")


def main() -> int:
    return cli.main(["promote", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

"""promote: make a calibrator, with its recipe and the decision rule of the settings, the live versions of the task.

    deepintuit promote --conf conf/local.yaml [--calibrator ID] [--force]

Takes no calibrator that is not known to beat the tempered vote, or that is no better than a constant guess, on videos that
it had not seen (`calibrate` says so), or that is known to lose more than the live one on the videos that both were judged
by, in NLL or in cost (decide.costs and decide.review, whatever the rule), unless forced. One that was promoted before, it
takes again; `rollback` is shorter.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from jobs.runtime import cli
from jobs.runtime.errors import Doubted
from jobs.runtime.run import Run
from jobs.steps import promotion, rules

TAKES_BUDGET = False


def run(run: Run, arguments: argparse.Namespace) -> None:
    manifest = run.lake.registry.calibrator(run.task, arguments.calibrator)
    before = {pair["calibrator_id"] for pair in run.lake.registry.promotions(run.task, whole=False)}
    if (why := promotion.doubt(run, manifest)) and manifest["calibrator_id"] not in before:
        if not arguments.force:
            raise Doubted(
                f"calibrator {manifest['calibrator_id']} ({manifest['kind']}): {why}; --force promotes it all the same"
            )
        run.record.warn(f"promoted by --force: {why}")
    scorer = rules.registered(run, manifest)
    if rules.leaves_all_to_people(scorer.rule) and not arguments.force:
        raise Doubted(
            f"calibrator {manifest['calibrator_id']}: by decide.precision {run.settings.decide.precision:g} no label would "
            "ever be given, people would decide all; ask for less, label more, or --force"
        )
    live = scorer.versions | {
        "task": run.task,
        "rule": scorer.rule,
        "promoted_at": datetime.now(UTC).isoformat(),
        "run_id": run.record.run_id,
        "doubt": why,  # what spoke against it, "" for nothing
    }
    run.lake.registry.promote(run.task, live)
    run.record.versions |= scorer.versions
    run.record.say(
        f"live for {run.task}: scorer {scorer.id} (calibrator {live['calibrator_id']}, recipe {live['recipe_id']}), rule "
        f"{live['rule_id']} {scorer.rule}; `nightly` and `backfill` decide by it, `score` where its settings say the same"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibrator", metavar="ID", help="a registered calibrator; without it, the one that calibrate nominated"
    )
    parser.add_argument("--force", action="store_true", help="also one that is not known to beat the tempered vote")


def main() -> int:
    return cli.main(["promote", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

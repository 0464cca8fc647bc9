"""score: probabilities and decisions for every video that has its traces. Runs the calibrator, and of
kind vlm the model that reviews traces; never the one that writes them.

    deepintuit score --conf conf/local.yaml [--calibrator ID] [--set decide.threshold=0.8]

Without --calibrator the live one scores; a candidate can be tried beside it before it is promoted. The decision rule is
that of the settings.
"""

from __future__ import annotations

import argparse
import sys

from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.run import Run
from jobs.steps import rules, scope
from jobs.steps.scoring import score_all
from schemas.decisions import DECISIONS
from schemas.splits import STAGES


def run(run: Run, arguments: argparse.Namespace) -> None:
    calibrator_id = arguments.calibrator or run.lake.registry.live(run.task)["calibrator_id"]
    manifest = run.lake.registry.calibrator(run.task, calibrator_id)
    scorer = rules.scorer(run, manifest)
    chosen = scope.of_split(run, arguments.split, scorer.recipe)
    most = run.budget.max_videos
    if most is not None:
        by_it = (F.col("scorer_id") == scorer.id) & (F.col("rule_id") == scorer.rule_id)
        todo = chosen.without(run.lake.read(DECISIONS).where(by_it))
        run.record.deferred = todo.count() > most
        chosen = scope.fix(run, "scope", scope.oldest(todo, most))
    score_all(run, scorer, chosen)
    live = run.lake.registry.live(run.task) if not arguments.calibrator else None
    if live and (scorer.id, scorer.rule_id) != (live["scorer_id"], live["rule_id"]):
        run.record.warn(
            f"decided by rule {scorer.rule_id} of the settings, live is {live['rule_id']}: these decisions are not what "
            "`is_live` names, give `score` the settings that `promote` was given"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calibrator", metavar="ID", help="a registered calibrator; without it, the live one")
    parser.add_argument("--split", choices=STAGES, help="only videos of this stage; without it, all videos")


def main() -> int:
    return cli.main(["score", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

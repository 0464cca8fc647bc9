"""score: probabilities and decisions for every video that has its traces. Runs the calibrator, never the model.

    deepintuit score --conf conf/local.yaml [--calibrator ID] [--set decide.threshold=0.8]

Without --calibrator the live one scores; a candidate can be tried beside it before it is promoted. The decision rule is
that of the settings.
"""

from __future__ import annotations

import argparse
import sys

from jobs import cli, scorer
from jobs.rollout import in_scope
from jobs.run import Run
from schemas.splits import STAGES
from schemas.videos import VIDEOS


def run(run: Run, arguments: argparse.Namespace) -> None:
    calibrator_id = arguments.calibrator or run.registry.live(run.task)["calibrator_id"]
    chosen = scorer.of_manifest(run.registry.calibrator(run.task, calibrator_id), run.settings.decide)
    if not run.budget.allows(0):
        run.deferred = True
        run.say("the deadline is over: nothing was scored")
        return
    scope = in_scope(run.read(VIDEOS), run.view("current_splits"), run.task, arguments.split)
    scorer.score_all(run, chosen, scope)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calibrator", metavar="ID", help="a registered calibrator; without it, the live one")
    parser.add_argument("--split", choices=STAGES, help="only videos of this stage; without it, all videos")


def main() -> int:
    return cli.main(["score", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

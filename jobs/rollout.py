"""rollout: K reasoning traces for every video that lacks them, in waves, oldest videos first.

deepintuit rollout --conf conf/local.yaml [--split calibrate] [--set rollout.n=8] [--max-videos 1000] [--deadline 2h]
"""

from __future__ import annotations

import argparse
import sys

from jobs.runtime import cli
from jobs.runtime.run import Run
from jobs.steps import recipes, scope
from jobs.steps.rollouts import roll_out, say_statuses
from schemas.splits import STAGES


def run(run: Run, arguments: argparse.Namespace) -> None:
    recipe = recipes.of_settings(run.settings)
    roll_out(run, recipe, run.settings.rollout.n, scope.of_split(run, arguments.split, recipe))
    say_statuses(run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", choices=STAGES, help="only videos of this stage; without it, all videos")


def main() -> int:
    return cli.main(["rollout", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

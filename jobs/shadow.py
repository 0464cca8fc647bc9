"""shadow: have a candidate score what every night scores, beside the live versions, until it is promoted or sent away.

    deepintuit shadow --conf conf/local.yaml [--calibrator ID]
    deepintuit shadow --conf conf/local.yaml --none

Its scores and decisions are rows like others under its own ids; current_scores and review_queue never show them.
`deepintuit compare LIVE SHADOW` holds both against each other where labels have come, `deepintuit sql` anywhere.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import rules

TAKES_BUDGET = False


def run(run: Run, arguments: argparse.Namespace) -> None:
    if arguments.none:
        if arguments.calibrator:
            raise UsageError("shadow: expected --calibrator or --none, found both")
        run.lake.registry.cast_shadow(run.task, None)
        run.record.say("nothing scores beside the live versions any more")
        return
    manifest = run.lake.registry.calibrator(run.task, arguments.calibrator)
    scorer = rules.registered(run, manifest)
    if scorer.recipe.imported:
        raise UsageError(
            f"shadow: calibrator {manifest['calibrator_id']} reads traces of {scorer.recipe.json['by']}, which no night "
            "makes: `deepintuit score --calibrator` scores what was imported"
        )
    versions = scorer.versions | {"rule": scorer.rule, "since": datetime.now(UTC).isoformat()}
    run.lake.registry.cast_shadow(run.task, versions)
    run.record.versions |= scorer.versions
    run.record.say(
        f"scorer {scorer.id} (calibrator {manifest['calibrator_id']}) scores what `nightly` scores, beside the live versions"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibrator", metavar="ID", help="a registered calibrator; without it, the one that calibrate nominated"
    )
    parser.add_argument("--none", action="store_true", help="no shadow any more")


def main() -> int:
    return cli.main(["shadow", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

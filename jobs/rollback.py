"""rollback: make the versions live again that were live before the ones that are.

    deepintuit rollback --conf conf/local.yaml

Scorer and rule as they were then; whatever settings say now. Once more brings back what was rolled back, as with kubectl's
`rollout undo`; any other calibrator that was live once, `promote --calibrator ID` takes.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import scorers
from udfs.calibrator import open_calibrator

TAKES_BUDGET = False


def run(run: Run, arguments: argparse.Namespace) -> None:
    versions = run.lake.registry.before(run.task)
    if versions is None:
        raise UsageError(f"rollback: expected versions of task {run.task} that were live before, found none")
    manifest = run.lake.registry.calibrator(run.task, versions["calibrator_id"])
    open_calibrator(run.lake.registry.folder(run.task, manifest["calibrator_id"]))  # whole, or it is told here
    scorer = scorers.of_manifest(manifest, versions["rule"], run.label_set)
    told = {name: value for name, value in versions.items() if name != "is_live"}
    now = {"promoted_at": datetime.now(UTC).isoformat(), "run_id": run.record.run_id}
    run.lake.registry.promote(run.task, told | now)
    run.record.versions |= scorer.versions
    run.record.say(
        f"live for {run.task} again: scorer {scorer.id} (calibrator {versions['calibrator_id']}), rule {scorer.rule_id}, as "
        f"promoted on {versions['promoted_at']}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """rollback has nothing to choose."""


def main() -> int:
    return cli.main(["rollback", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

"""maintain: keep the lake small and clean. Compacts small files, removes what no table names any more.

    deepintuit maintain --conf conf/local.yaml        once a night or once a week, beside other jobs

Compacts every table, removes files that were replaced longer ago than maintain.retention_hours (never younger than the
oldest running job or staged wave), files and staging that killed runs left behind, and Spark's scratch space of processes
that are gone on this host. Waves that a gate holds stay.
"""

from __future__ import annotations

import argparse
import sys

from jobs.runtime import cli, session
from jobs.runtime.run import Run
from lake.maintenance import upkeep
from schemas.tables import TABLES

TAKES_BUDGET = False


def run(run: Run, arguments: argparse.Namespace) -> None:
    """What dead runs left in staging is gone by now: every run begins by mending that."""
    settings, lake = run.settings.maintain, run.lake
    sums = dict.fromkeys(("files_before", "files_after", "vacuumed", "orphans", "bytes_freed"), 0)
    for table in TABLES:
        found = vars(
            upkeep(table, lake.root, run.record.run_id, settings.target_file_mb << 20, settings.retention_hours)
        )
        sums = {name: sums[name] + found[name] for name in sums}
        if found["files_after"] < found["files_before"] or found["vacuumed"] or found["orphans"]:
            run.record.say(
                f"{table.name}: {found['files_before']} files are {found['files_after']} now; removed {found['vacuumed']} "
                f"that were replaced and {found['orphans']} that no commit named"
            )
    site = session.properties(run.settings.spark.properties).get("spark.local.dir")
    scratch = session.remove_leftovers(site, settings.retention_hours)
    run.record.add(sums | {"scratch_bytes_freed": scratch})
    freed = (sums["bytes_freed"] + scratch) / 1e6
    run.record.say(f"{sums['files_before']} files are {sums['files_after']} now; {freed:,.1f} MB were freed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """maintain takes its settings from the configuration alone."""


def main() -> int:
    return cli.main(["maintain", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

"""quality: what the contracts of the tables found in their newest waves and in the days before, worst first.

    deepintuit quality --conf conf/local.yaml [--days 30] [--strict]

With --strict the exit code is 3 where a check failed in the newest wave that its table was checked in.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.run import Run
from lake import catalog
from lake.waves import Held
from schemas.quality import QUALITY

IS_A_RUN = False
TAKES_BUDGET = False
_MOST_NAMED = 3  # in a message; all are in the document


def by_check(quality: DataFrame, days: int) -> DataFrame:
    """One row for each check of the last `days` days: what it found in its newest wave, in all of them, and in as many days
    before; checks that fail in the newest wave come first, those that fail most often before others."""
    age = F.expr("current_timestamp() - checked_at")
    length = F.make_dt_interval(F.lit(days))
    lately, before = age <= length, age > length

    def total(column: str, when: Any) -> Any:
        return F.coalesce(F.sum(F.when(when, F.col(column))), F.lit(0))

    newest = F.max_by(
        F.struct("wave_id", "unexpected", "rows", "expected", "success"), F.struct("checked_at", "wave_id")
    )
    seen = quality.where(age <= length * 2).groupBy("table", "check")
    found = seen.agg(
        newest.alias("newest"),
        F.count_if(lately).alias("waves"),
        F.count_if(lately & ~F.col("success")).alias("waves_failed"),
        (total("unexpected", lately) / F.nullif(total("rows", lately), F.lit(0))).alias("share"),
        (total("unexpected", before) / F.nullif(total("rows", before), F.lit(0))).alias("share_before"),
    )
    share = F.col("newest.unexpected") / F.nullif("newest.rows", F.lit(0))
    worst = [F.desc_nulls_last(share), F.desc_nulls_last("share"), F.asc("table"), F.asc("check")]
    return found.where("waves > 0").orderBy(F.asc("newest.success"), *worst)


def told(row: Any) -> dict[str, Any]:
    """A row of `by_check` as the document has it; shares of rows that failed."""
    newest = row["newest"]
    return {
        "table": row["table"],
        "check": row["check"],
        "expected": newest["expected"],
        "newest_wave": {name: newest[name] for name in ("wave_id", "unexpected", "rows")},
        "waves": row["waves"],
        "waves_failed": row["waves_failed"],
        "share": row["share"],
        "share_before": row["share_before"],
    }


def run(run: Run, arguments: argparse.Namespace) -> None:
    catalog.require(run.lake.root)
    rows = by_check(run.lake.read(QUALITY), arguments.days).collect()
    failing = [row for row in rows if not row["newest"]["success"]]
    document = {
        "lake": run.lake.root,
        "days": arguments.days,
        "checks": len(rows),
        "failing_now": [told(row) for row in failing],
        "failed_lately": [told(row) for row in rows if row["newest"]["success"] and row["waves_failed"]],
    }
    print(json.dumps(document, indent=2))
    if arguments.strict and failing:
        named = "; ".join(
            f"{row['table']}.{row['check']}: {row['newest']['unexpected']} of {row['newest']['rows']} rows of wave "
            f"{row['newest']['wave_id']}"
            for row in failing[:_MOST_NAMED]
        )
        raise Held(
            f"quality: {len(failing)} checks failed in the newest wave of their table ({named}): what was refused is in the "
            "table quarantine, with reason and message"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=cli.positive, default=30, metavar="N", help="how far back (default 30)")
    parser.add_argument("--strict", action="store_true", help="exit code 3 where a check failed in the newest wave")


def main() -> int:
    return cli.main(["quality", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

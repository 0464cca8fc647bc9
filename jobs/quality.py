"""quality: what the contracts of the tables found in their newest waves and in the days before, worst first.

    deepintuit quality --conf conf/local.yaml [--days 30] [--references] [--max-age HOURS] [--strict]

With --strict the exit code is 3 where a check that refuses or stops failed in the newest wave that it was asked of, where a
row refers to nothing, where the newest video is older than --max-age, and where ten times as many or as few videos came on
the newest day as usually do.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from statistics import median
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.run import Run
from lake import catalog
from lake.catalog import Lake
from lake.waves import Held
from schemas.decisions import DECISIONS
from schemas.quality import QUALITY
from schemas.runs import RUNS
from schemas.scores import SCORES
from schemas.tables import BY_NAME, TABLES
from schemas.traces import TRACES
from schemas.videos import VIDEOS

IS_A_RUN = False
TAKES_BUDGET = False
STAGES = (VIDEOS, TRACES, SCORES, DECISIONS)
_MOST_NAMED = 3  # in a message; all are in the document
_USUAL = 5  # days, fewer of which tell nothing of what usually comes
_ODD = 10  # times as many, or as few


def by_check(quality: DataFrame, days: int) -> DataFrame:
    """One row for each check of the last `days` days: what it found in its newest wave, in all of them, and in as many days
    before; checks that fail in the newest wave come first, those that fail most often before others."""
    age = F.expr("current_timestamp() - checked_at")
    length = F.make_dt_interval(F.lit(days))
    lately, before = age <= length, age > length

    def total(column: str, when: Any) -> Any:
        return F.coalesce(F.sum(F.when(when, F.col(column))), F.lit(0))

    newest = F.max_by(
        F.struct("wave_id", "unexpected", "rows", "expected", "severity", "success"), F.struct("checked_at", "wave_id")
    )
    seen = quality.where(age <= length * 2).groupBy("table", "check", "about")
    found = seen.agg(
        newest.alias("newest"),
        F.count_if(lately).alias("waves"),
        F.count_if(lately & ~F.col("success")).alias("waves_failed"),
        (total("unexpected", lately) / F.nullif(total("rows", lately), F.lit(0))).alias("share"),
        (total("unexpected", before) / F.nullif(total("rows", before), F.lit(0))).alias("share_before"),
    )
    share = F.col("newest.unexpected") / F.nullif("newest.rows", F.lit(0))
    grave = F.when(F.col("newest.severity") == "stop", 0).when(F.col("newest.severity") == "refuse", 1).otherwise(2)
    worst = [F.asc(grave), F.desc_nulls_last(share), F.desc_nulls_last("share")]
    worst += [F.asc(name) for name in ("table", "check", "about")]
    return found.where("waves > 0").orderBy(F.asc("newest.success"), *worst)


def told(row: Any) -> dict[str, Any]:
    """A row of `by_check` as the document has it; shares of rows that failed."""
    newest = row["newest"]
    return {
        "table": row["table"],
        "check": row["check"],
        "about": row["about"],
        "severity": newest["severity"],
        "expected": newest["expected"],
        "newest_wave": {name: newest[name] for name in ("wave_id", "unexpected", "rows")},
        "waves": row["waves"],
        "waves_failed": row["waves_failed"],
        "share": row["share"],
        "share_before": row["share_before"],
    }


def lost(lake: Lake, days: int) -> list[dict[str, Any]]:
    """Of rows of videos that came in these days, those that refer to a row that is not there, by reference."""
    found = []
    since = F.date_sub(F.current_date(), days)
    for table in TABLES:
        for reference in table.references:
            columns = list(reference.columns)
            left = lake.read(table).where(F.col("ingested_on") >= since).select("video_id", *columns)
            for name in reference.tables:
                right = lake.read(BY_NAME[name])
                if "ingested_on" in right.columns:  # a row and what it refers to are of one video
                    right = right.where(F.col("ingested_on") >= since)
                left = left.join(right.select(*columns), columns, "left_anti")
            count, example = left.agg(F.count("*"), F.min("video_id")).first() or (0, None)
            if count:
                place = " or ".join(reference.tables)
                found.append({"table": table.name, "columns": columns, "in": place, "rows": count, "video_id": example})
    return found


def ages(lake: Lake) -> dict[str, float | None]:
    """Hours since each stage last published a wave; None where it never did."""
    waves = lake.read(RUNS).where(F.col("event").startswith("wave "))
    last = [
        F.max(F.when(F.col("counts")[f"{table.name}_landed"] > 0, F.col("at"))).alias(table.name) for table in STAGES
    ]
    hours = [
        ((F.unix_timestamp(F.current_timestamp()) - F.unix_timestamp(table.name)) / 3600).alias(table.name)
        for table in STAGES
    ]
    return waves.agg(*last).select(*hours).collect()[0].asDict()


def volumes(lake: Lake, days: int) -> dict[str, dict[str, Any] | None]:
    """Rows that each stage published on the newest day on which it did, of these; usually: the median of the other days,
    None of fewer than _USUAL. None where it published nothing."""
    waves = lake.read(RUNS).where(
        F.col("event").startswith("wave ") & (F.to_date("at") > F.date_sub(F.current_date(), days))
    )
    sums = [F.sum(F.col("counts")[f"{table.name}_landed"]).alias(table.name) for table in STAGES]
    by_day = waves.groupBy(F.to_date("at").alias("day")).agg(*sums).orderBy("day").collect()
    return {
        table.name: _volume([(row["day"], row[table.name]) for row in by_day if row[table.name]]) for table in STAGES
    }


def _volume(by_day: list[tuple[date, int]]) -> dict[str, Any] | None:
    if not by_day:
        return None
    *others, (day, rows) = by_day
    usually = median([count for _, count in others]) if len(others) >= _USUAL else None
    return {"day": day.isoformat(), "rows": rows, "usually": usually}


def _named(row: Any) -> str:
    newest, what = row["newest"], f"{row['table']}.{row['check']}"
    if newest["severity"] == "refuse":
        return f"{what}: {newest['unexpected']} of {newest['rows']} rows of wave {newest['wave_id']}"
    return f"{what} of {row['about']}, wave {newest['wave_id']}: {newest['expected']}"


def faults_of(
    failing: list[Any],
    orphans: list[dict[str, Any]],
    hours: float | None,
    max_age: int | None,
    volume: dict[str, Any] | None,
) -> list[str]:
    """What is not as it should be: checks that fail, rows that refer to nothing, the age of the newest wave of videos, how
    many came."""
    found = []
    if failing:
        named = "; ".join(map(_named, failing[:_MOST_NAMED]))
        found.append(
            f"{len(failing)} checks failed in the newest wave of their table ({named}): rows that were refused are in the "
            "table quarantine, with reason and message; `deepintuit waves list` shows what is held"
        )
    found += [
        f"{of['rows']} rows of {of['table']} refer to nothing in {of['in']}, as of {of['video_id']}" for of in orphans
    ]
    if max_age is not None and (hours is None or hours > max_age):
        age = "none has ever come" if hours is None else f"the newest wave of them is {hours:.1f} hours old"
        found.append(f"expected videos of the last {max_age} hours, but {age}")
    usually = volume and volume["usually"]
    if volume and usually and not usually / _ODD < volume["rows"] < usually * _ODD:
        found.append(
            f"expected about {usually:,.0f} new videos, as on most days, found {volume['rows']:,} on {volume['day']}"
        )
    return found


def run(run: Run, arguments: argparse.Namespace) -> None:
    catalog.require(run.lake.root)
    rows = by_check(run.lake.read(QUALITY), arguments.days).collect()
    failing = [row for row in rows if not row["newest"]["success"]]
    orphans = lost(run.lake, arguments.days) if arguments.references else None
    hours, landed = ages(run.lake), volumes(run.lake, arguments.days)
    document = {
        "lake": run.lake.root,
        "days": arguments.days,
        "checks": len(rows),
        "failing_now": [told(row) for row in failing],
        "failed_lately": [told(row) for row in rows if row["newest"]["success"] and row["waves_failed"]],
        "hours_since_a_wave": hours,
        "landed": landed,
        "refer_to_nothing": orphans,
    }
    print(json.dumps(document, indent=2))
    grave = [row for row in failing if row["newest"]["severity"] != "warn"]
    faults = faults_of(grave, orphans or [], hours[VIDEOS.name], arguments.max_age, landed[VIDEOS.name])
    if arguments.strict and faults:
        raise Held(f"quality: {'; '.join(faults)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=cli.positive, default=30, metavar="N", help="how far back (default 30)")
    parser.add_argument(
        "--references", action="store_true", help="look for rows that refer to nothing; reads these days"
    )
    parser.add_argument("--max-age", type=cli.positive, metavar="HOURS", help="of the newest wave of videos")
    parser.add_argument("--strict", action="store_true", help="exit code 3 where any of that is not as it should be")


def main() -> int:
    return cli.main(["quality", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

"""sql: a query over all tables and views of the lake.

    deepintuit sql "select label, count(*) from current_scores group by label" --conf conf/local.yaml [--json]

Tables: files, videos, labels, splits, recipes, scorers, traces, scores, decisions, quarantine, quality, runs, metrics.
Views: current_labels, current_splits, current_traces, current_scores, review_queue, live.
docs/queries.sql has ten to begin with.
"""

from __future__ import annotations

import argparse
import json
import sys

from pyspark.errors import AnalysisException, ParseException
from pyspark.logger import PySparkLogger

from jobs import cli
from jobs.run import Run, UsageError
from schemas import lake

READS_ONLY = True
TAKES_BUDGET = False


def run(run: Run, arguments: argparse.Namespace) -> None:
    lake.require(run.root)
    lake.register_views(run.spark, run.root, run.registry.live_rows())
    PySparkLogger.getLogger("SQLQueryContextLogger").disabled = True  # one clear line, not a JSON log beside it
    try:
        answer = run.spark.sql(arguments.query.strip().rstrip(";"))
    except (AnalysisException, ParseException) as error:
        raise UsageError("sql: " + " ".join(str(error).split("\n\nJVM")[0].split("== SQL")[0].split())) from None
    if not arguments.json:
        answer.show(arguments.rows, truncate=False)
        return
    for row in answer.limit(arguments.rows).toJSON().toLocalIterator():
        print(json.dumps(json.loads(row)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", help="one SELECT in Spark SQL")
    parser.add_argument("--rows", type=int, default=50, metavar="N", help="rows to print")
    parser.add_argument("--json", action="store_true", help="one JSON document a row")


def main() -> int:
    return cli.main(["sql", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

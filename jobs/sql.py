"""sql: a query over all tables and views of the lake.

    deepintuit sql "select label, count(*) from current_scores group by label" --conf conf/local.yaml [--json]

Tables: files, videos, labels, splits, recipes, scorers, traces, scores, decisions, quarantine, quality, runs, metrics.
Views: current_labels, current_splits, current_traces, current_scores, review_queue, live, promotions.
docs/queries.sql has ten to begin with.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from contextlib import redirect_stdout

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from jobs.runtime import cli, session
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from lake import catalog
from models.language.terminal import harmless

IS_A_RUN = False
TAKES_BUDGET = False
_WIDEST = 300  # characters of a cell; --json has all of them


def run(run: Run, arguments: argparse.Namespace) -> None:
    catalog.require(run.lake.root)
    run.lake.register_views()
    try:
        show(ask(run, arguments.query.strip().rstrip(";")), arguments.rows, arguments.json)
    except PySparkException as error:
        if error.getCondition() == "TABLE_OR_VIEW_NOT_FOUND":
            asked = (error.getMessageParameters() or {}).get("relationName", "").replace("`", "")
            raise UsageError(
                f"sql: expected a table or view of the lake, found {asked}; there are {', '.join(catalog.NAMES)}"
            ) from None
        said = str(error).split("\n\nJVM")[0].split("== SQL")[0].split(";\n")[0]  # behind it comes the plan, in pages
        raise UsageError("sql: " + " ".join(said.split())) from None


def ask(run: Run, query: str) -> DataFrame:
    """The answer to a query; nothing is changed. Raises UsageError for a statement that is not a query."""
    plan = run.lake.spark._jsparkSession.sessionState().sqlParser().parsePlan(query)
    kinds = ("Command", "ParsedStatement")  # DDL and SET; INSERT, also behind a WITH
    classes = [
        session.java_class(run.lake.spark, f"org.apache.spark.sql.catalyst.plans.logical.{kind}") for kind in kinds
    ]
    while plan.getClass().getSimpleName() == "UnresolvedWith":
        plan = plan.child()
    if any(kind.isInstance(plan) for kind in classes):
        raise UsageError(f"sql: expected a query, found {plan.getClass().getSimpleName()}: this command only reads")
    return run.lake.spark.sql(query)


def show(answer: DataFrame, rows: int, as_json: bool) -> None:
    if not as_json:
        with io.StringIO() as table, redirect_stdout(table):
            answer.show(rows, truncate=_WIDEST)
            shown = table.getvalue()
        print(harmless(shown), end="")
        return
    for row in answer.limit(rows).toJSON().toLocalIterator():
        print(json.dumps(json.loads(row)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", help="one SELECT in Spark SQL")
    parser.add_argument("--rows", type=cli.positive, default=50, metavar="N", help="rows to print")
    parser.add_argument("--json", action="store_true", help="one JSON document a row, with whole cells")


def main() -> int:
    return cli.main(["sql", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

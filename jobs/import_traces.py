"""import-traces: traces that other systems wrote, of videos that may not be here: calibrate, score and evaluate take them.

    deepintuit import-traces --source FILE.jsonl|.csv|.tsv|.parquet --map id=FIELD text=FIELD [...] --conf conf/local.yaml

    id=FIELD         names the video: its file's name or, where its bytes never come, whatever tells it from others
    text=FIELD,...   what was written; several fields are several prompts
    prompt=FIELD     tells several rows about one video apart, where they were asked differently
    answer=WHERE     $.path in the JSON that the text is or holds, /regular expression/, or a FIELD of the row; without it
                     rollout.grammar reads the text
    think=WHERE      the reasoning, likewise
    --value WORD=LABEL  what the other system calls a label; repeatable

Fields of a row may be nested: meta.id. JSON may stand in a fence, be broken, or be lines of `key: value`: what is wanted is
looked for, nothing is guessed, and a text without a readable answer is a row with the status parse_error. Rows that cannot
be tied to a video are refused and counted. Every video has as many traces as the most that any has of each prompt: what the
file lacks is a row that says so. Doing it again takes in only what is new; labels come by `deepintuit ingest --labels`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import PurePath

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import imports
from jobs.steps.recipes import Recipe
from lake.staging import Wave
from lake.waves import Settled, Work
from lake.write import stage
from models.language.loose import Where
from schemas.imports import IMPORTS
from schemas.quarantine import QUARANTINE
from schemas.recipes import RECIPES
from schemas.traces import STATUSES, TRACES
from udfs.foreign import Mapped

TAKES_BUDGET = False
_KEYS = ("id", "text", "prompt", "answer", "think")
_USUALLY = 0.5  # share of readable answers


def run(run: Run, arguments: argparse.Namespace) -> None:
    mapped, values = mapping(arguments.map), of_pairs("--value", arguments.value)
    if unknown := set(values.values()) - set(run.labels):
        raise UsageError(f"--value: expected labels of task {run.task}, found {', '.join(sorted(unknown))}")
    run.waves.must_be_open(TRACES, IMPORTS)
    given = imports.lines(run, arguments.source, mapped)
    rows = imports.read(run, given, mapped, values)
    path = run.path("matched")
    rows.write.mode("overwrite").parquet(path)
    rows = run.lake.spark.read.parquet(path)
    # Of rows that cannot be tied to a video there is one each, of others one for each text.
    found = rows.groupBy("refused_reason").count().collect()
    whole = {row["refused_reason"] or "": row["count"] for row in found}
    asked = given.count()
    single = sum(whole.get(reason, 0) for reason in ("broken_row", "no_id"))
    if (asked - single) * len(mapped.texts) + single != sum(whole.values()):
        raise RuntimeError(f"{asked} rows of {len(mapped.texts)} texts became {sum(whole.values())}: rows were lost")
    recipe = imports.recipe_of(run, arguments.by or PurePath(arguments.source).stem, mapped, values, rows)
    path = run.path("placed")
    imports.placed(run, rows, recipe).write.mode("overwrite").parquet(path)
    placed = run.lake.spark.read.parquet(path)
    settled = publish(run, placed, recipe)
    refused = (
        settled.refused(TRACES) - sum(settled.reasons[TRACES.name].get(reason, 0) for reason in whole) if settled else 0
    )
    if (lost := imports.absent(run, placed, recipe)) > refused:
        raise RuntimeError(f"{lost} traces of the file are not in the lake, {refused} were refused: some were lost")
    account(run, recipe, whole, settled)


def publish(run: Run, placed: DataFrame, recipe: Recipe) -> Settled | None:
    """What the lake lacks, in one wave: traces and the names that they are about. None where it lacks nothing."""
    traces_at, refused_at = run.lake.version(TRACES), run.lake.version(QUARANTINE)
    run.register(RECIPES, recipe.id, recipe.json)
    new = imports.news(run, placed, recipe)
    if new.isEmpty():
        return None

    def write(wave: Wave) -> Work:
        names = imports.named(run, placed, recipe)
        return [stage(wave, TRACES, new, traces_at, refused_at), stage(wave, IMPORTS, names)], {}

    return run.waves.make(write, run.record.versions | {"recipe_id": recipe.id})


def account(run: Run, recipe: Recipe, whole: dict[str, int], settled: Settled | None) -> None:
    """What became of the file, and what the recipe has of it and of earlier ones."""
    traces = run.lake.view("current_traces").where(F.col("recipe_id") == recipe.id)
    lacking = F.coalesce(F.col("error").startswith(imports.NOT_GIVEN), F.lit(False))
    by_status = Counter[str]()
    for row in traces.groupBy("status", lacking.alias("lacking")).count().collect():
        by_status[imports.NOT_GIVEN if row["lacking"] else row["status"]] += row["count"]
    kept, refused = whole.get("", 0), sum(count for reason, count in whole.items() if reason)
    there = by_status.total() - by_status[imports.NOT_GIVEN]
    run.record.add(
        {
            "traces_given": kept + refused,
            "traces_refused": refused,
            "traces_new": settled.landed[TRACES.name].rows if settled else 0,
            "traces_not_given": by_status[imports.NOT_GIVEN],
            "videos": traces.select("video_id").distinct().count(),
        }
        | {f"status_{status}": by_status[status] for status in STATUSES}
        | {f"refused_{reason}": count for reason, count in whole.items() if reason}
    )
    run.record.versions["recipe_id"] = recipe.id
    listed = ", ".join(f"{count:,} {status}" for status, count in by_status.items() if count)
    run.record.say(
        f"{kept + refused:,} traces given, {refused:,} refused; recipe {recipe.id} has {recipe.imported} of each of "
        f"{run.record.counts['videos']:,} videos: {listed}"
    )
    if by_status["ok"] < _USUALLY * there:
        run.record.warn(
            f"only {by_status['ok']:,} of {there:,} traces have an answer that names a label: --map answer= says where, "
            "--value what it is called there. A calibrator of kind text reads the others all the same"
        )
    run.record.say(f"`deepintuit calibrate --traces {recipe.id} --set calibrate.kind=text` learns from them")


def mapping(pairs: list[str]) -> Mapped:
    """What --map says. Raises UsageError for what cannot be meant."""
    given = of_pairs("--map", pairs)
    if unknown := set(given) - set(_KEYS):
        raise UsageError(f"--map: expected {', '.join(_KEYS)}, found {', '.join(sorted(unknown))}")
    if missing := [name for name in ("id", "text") if name not in given]:
        raise UsageError(f"--map: expected {' and '.join(f'{name}=FIELD' for name in missing)}, found it missing")
    texts = tuple(field.strip() for field in given["text"].split(",") if field.strip())
    try:
        answer, think = (Where(given[name]) if name in given else None for name in ("answer", "think"))
    except ValueError as error:
        raise UsageError(f"--map: {error}") from None
    return Mapped(given["id"], texts, given.get("prompt"), answer, think)


def of_pairs(flag: str, pairs: list[str]) -> dict[str, str]:
    """NAME=VALUE, ... as a dict. Raises UsageError for one without a name or a value, and for a name that comes twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not name or not value or name in found:
            raise UsageError(f"{flag} {pair}: expected NAME=VALUE, each name once")
        found[name] = value
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, metavar="FILE", help="JSON lines, CSV, TSV or Parquet")
    parser.add_argument("--map", required=True, nargs="+", metavar="KEY=WHERE", help="where in a row things are")
    parser.add_argument("--value", action="append", default=[], metavar="WORD=LABEL", help="another word for a label")
    parser.add_argument("--by", metavar="NAME", help="who wrote them (default: the name of the file)")


def main() -> int:
    return cli.main(["import-traces", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

"""compare: two recipes, or two scorers, on the same labelled videos: which is better, by how much, where, at what cost.

    deepintuit compare A B --conf conf/local.yaml [--split dev]

A and B are ids of recipes, compared by the votes of their K rollouts (half a vote added to each label), or of scorers, by
their probabilities. Only videos count that both have said something of; nothing is rolled out or scored. Differences are
B minus A, paired.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import functions as F
from rich.console import Console

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import judging, scope
from jobs.steps.comparison import Comparison
from jobs.steps.figures import note
from jobs.steps.scope import Scope
from lake.registry import RegistryError
from models.evaluation.figures import Predictions
from models.evaluation.methods import Case, Methods, Statements
from schemas.recipes import RECIPES
from schemas.runs import RUNS
from schemas.scorers import SCORERS
from schemas.splits import STAGES
from schemas.table import Table
from schemas.traces import TRACES

TAKES_BUDGET = False
_EXAMPLES = 5


@dataclass(frozen=True)
class Side:
    """One of the two. kind: recipe or scorer; recipe_id, k: the traces that it rests on."""

    id: str
    kind: str
    recipe_id: str
    k: int


def flips(a: Predictions, b: Predictions, cases: Sequence[Case]) -> dict[str, list[str]]:
    """Videos of which one is right and the other is not, and those where both are wrong in different ways: by what happened.

    Of independent labels a video counts where all its answers are right.
    """
    right: list[dict[int, bool]] = []
    for rows in (a, b):
        of_case: dict[int, bool] = {}
        for case, one in zip(rows.case.tolist(), rows.right.tolist(), strict=True):
            of_case[case] = of_case.get(case, True) and bool(one)
        right.append(of_case)
    differ = {
        case
        for case, one, other in zip(a.case.tolist(), a.guess.tolist(), b.guess.tolist(), strict=True)
        if one != other
    }
    found: dict[str, list[str]] = {"mended": [], "broken": [], "wrong otherwise": []}
    for number, case in enumerate(cases):
        before, after = right[0][number], right[1][number]
        if before != after:
            found["mended" if after else "broken"].append(case.video_id)
        elif not after and number in differ:
            found["wrong otherwise"].append(case.video_id)
    return found


def run(run: Run, arguments: argparse.Namespace) -> None:
    if arguments.a == arguments.b:
        raise UsageError(f"compare: expected two different ids, found {arguments.a} twice")
    sides = [_side(run, asked) for asked in (arguments.a, arguments.b)]
    if sides[0].kind != sides[1].kind:
        raise UsageError(
            f"compare: expected two recipes or two scorers, found a {sides[0].kind} ({sides[0].id}) and a {sides[1].kind}"
        )
    within, cases = judging.labelled(run, "labelled", scope.stage(run, arguments.split))
    methods = Methods(run.labels, run.label_set.independent)
    said = [_said(run, side, within, cases) for side in sides]
    both = [number for number in range(len(cases)) if all(number in of_side for of_side in said)]
    run.record.add({"videos_labelled": len(cases), "videos": len(both)})
    if not both:
        raise UsageError(
            f"compare: of {len(cases)} labelled videos in the split {arguments.split} none is known to both {sides[0].id} "
            f"({len(said[0])}) and {sides[1].id} ({len(said[1])})"
        )
    kept = [cases[number] for number in both]
    table = Comparison(methods, kept)
    for side, of_side in reversed(list(zip(sides, said, strict=True))):  # the first row is held against the others
        own = [of_side[number] for number in both]
        table.add(side.id, methods.of_probs(own) if side.kind == "scorer" else _votes(methods, own))
    found = table.found()
    moved = flips(table.rows[sides[0].id], table.rows[sides[1].id], kept)
    costs = {side.id: _cost(run, side, within) for side in sides}
    note(run, found.metrics(run))
    run.record.results = found.document() | {"flips": moved, "costs": costs}
    if not run.record.quiet:
        found.show(run)
        _show(moved, costs, len(both))


def _side(run: Run, asked: str) -> Side:
    """What an id stands for. Raises UsageError for one that no recipe and no scorer has."""
    for kind, table in (("recipe", RECIPES), ("scorer", SCORERS)):
        key = table.key[0]
        found = run.lake.read(table).where((F.col(key) == asked) & (F.col("task") == run.task)).select("json").head(1)
        if not found:
            continue
        if kind == "recipe":
            return Side(asked, kind, asked, run.settings.rollout.n)
        told = F.from_json("json", "recipes array<string>, rollouts int")
        row = run.lake.read(SCORERS).where(F.col(key) == asked).select(told.alias("told")).head(1)[0]["told"]
        return Side(asked, kind, row["recipes"][0], row["rollouts"])
    known = {table.name: _newest(run, table) for table in (RECIPES, SCORERS)}
    raise RegistryError(f"compare: no recipe and no scorer of task {run.task} is called {asked}; there are {known}")


def _newest(run: Run, table: Table) -> list[str]:
    rows = run.lake.read(table).where(F.col("task") == run.task).orderBy(F.desc("created_at")).limit(_EXAMPLES)
    return [row[table.key[0]] for row in rows.collect()]


def _said(run: Run, side: Side, within: Scope, cases: Sequence[Case]) -> dict[int, Any]:
    """By number of the case: the probabilities of a scorer, or all k traces of a recipe."""
    if side.kind == "scorer":
        probs = judging.probs_of(run, within, cases, side.id)
        return {number: given for number, given in enumerate(probs) if given is not None}
    traces = judging.traces_of(run, within, cases, side.recipe_id, side.k)
    return {number: own for number, own in enumerate(traces) if len(own) == side.k}


def _votes(methods: Methods, traces: Sequence[Any]) -> Statements:
    return methods.of_votes(traces, raw=False)


def _cost(run: Run, side: Side, within: Scope) -> dict[str, float]:
    """Tokens generated for a video, and seconds of waves a video took, as they were measured when it was made."""
    traces = within.of(run.lake.read(TRACES)).where(
        (F.col("recipe_id") == side.recipe_id) & (F.col("rollout_index") < side.k)
    )
    tokens = traces.agg(F.sum("tokens") / F.count_distinct("video_id")).collect()[0][0]
    waves = run.lake.read(RUNS).where(
        F.col("event").startswith("wave ")
        & (F.col("versions")["recipe_id"] == side.recipe_id)
        & (F.col("counts")["rollouts"] > 0)
    )
    seconds = waves.agg(F.sum("seconds") / F.sum(F.col("counts")["rollouts"])).collect()[0][0]
    return {"tokens_per_video": float(tokens or 0.0), "seconds_per_video": float(seconds or 0.0) * side.k}


def _show(moved: Mapping[str, list[str]], costs: Mapping[str, Mapping[str, float]], videos: int) -> None:
    console = Console(stderr=True, width=150)
    for what, ids in moved.items():
        some = f", for example {', '.join(ids[:_EXAMPLES])}" if ids else ""
        console.print(f"{what}: {len(ids)} of {videos}{some}", soft_wrap=True, highlight=False)
    for side, cost in costs.items():
        console.print(
            f"{side}: {cost['tokens_per_video']:.0f} tokens and {cost['seconds_per_video']:.2f} s of waves a video",
            highlight=False,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="id of a recipe or of a scorer")
    parser.add_argument("b", metavar="B", help="another one of the same kind; differences are B minus A")
    parser.add_argument("--split", choices=STAGES, default="test", help="labelled videos of which stage (default test)")


def main() -> int:
    return cli.main(["compare", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

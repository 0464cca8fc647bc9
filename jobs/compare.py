"""compare: two recipes, or two scorers, on the same labelled videos: which is better, by how much, where, at what cost.

    deepintuit compare A B --conf conf/local.yaml [--split dev]

A and B are ids of recipes, compared by the votes of their K rollouts (half a vote added to each label), or of scorers, by
their probabilities. Only videos count that both have said something of; nothing is rolled out or scored. Differences are
B minus A, paired.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import functions as F
from rich.console import Console

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import labelled, scope
from jobs.steps.comparison import Comparison
from jobs.steps.metrics import write_once
from jobs.steps.recipes import Recipe
from jobs.steps.scope import Scope
from lake.registry import RegistryError
from models.evaluation.flips import flips
from models.evaluation.methods import Case, Methods
from schemas.recipes import RECIPES
from schemas.runs import RUNS
from schemas.scorers import SCORERS
from schemas.scores import SCORES
from schemas.splits import STAGES
from schemas.table import Table
from schemas.traces import TRACES

TAKES_BUDGET = False
_EXAMPLES = 5


@dataclass(frozen=True)
class Side:
    """One of the two. kind: recipe or scorer; recipe: how the first k traces that it rests on were made; made_by: recipes of
    which each video takes as many rows: the reasoning ones, and those of reviews."""

    id: str
    kind: str
    recipe: Recipe
    k: int
    made_by: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Known:
    """What there is of a side. scope: the labelled videos with their texts as its recipe takes them; of_video: by id the
    score, or all k traces."""

    side: Side
    scope: Scope
    of_video: dict[str, Any]


def run(run: Run, arguments: argparse.Namespace) -> None:
    if arguments.a == arguments.b:
        raise UsageError(f"compare: expected two different ids, found {arguments.a} twice")
    sides = [_side(run, asked) for asked in (arguments.a, arguments.b)]
    if sides[0].kind != sides[1].kind:
        raise UsageError(
            f"compare: expected two recipes or two scorers, found a {sides[0].kind} ({sides[0].id}) and a {sides[1].kind}"
        )
    (a, cases), (b, _) = (_known(run, side, arguments.split) for side in sides)
    kept = [case for case in cases if case.video_id in a.of_video.keys() & b.of_video.keys()]
    run.record.add({"videos_labelled": len(cases), "videos": len(kept)})
    if not kept:
        raise UsageError(
            f"compare: of {len(cases)} labelled videos in the split {arguments.split} none is known to both {a.side.id} "
            f"({len(a.of_video)}) and {b.side.id} ({len(b.of_video)})"
        )
    methods = Methods(run.labels, run.label_set.independent)
    table = Comparison(methods, arguments.split, kept)
    for known in (b, a):  # the first row is held against the others
        own = [known.of_video[case.video_id] for case in kept]
        scored = known.side.kind == "scorer"
        table.add(known.side.id, methods.of_scores(own) if scored else methods.of_votes(own), known.side.id)
    result = table.result()
    moved = flips(table.rows[a.side.id], table.rows[b.side.id], kept)
    costs = {known.side.id: _cost(run, known) for known in (a, b)}
    write_once(run, result.metrics(run))
    run.record.results = result.document() | {"flips": moved, "costs": costs}
    if not run.record.quiet:
        result.show(run)
        _show(moved, costs, len(kept))


def _side(run: Run, asked: str) -> Side:
    """What an id stands for. Raises RegistryError for one that no recipe and no scorer has."""
    if (scorer := _json(run, SCORERS, asked)) is not None:
        found = [Recipe(recipe_id, _json(run, RECIPES, recipe_id) or {}, "") for recipe_id in scorer["recipes"]]
        reviews = tuple(recipe.id for recipe in found if recipe.reviewed)
        made_by = (tuple(recipe.id for recipe in found if not recipe.reviewed), *([reviews] if reviews else []))
        return Side(asked, "scorer", found[0], scorer["rollouts"], made_by)
    if (recipe := _json(run, RECIPES, asked)) is not None:
        return Side(asked, "recipe", Recipe(asked, recipe, ""), run.settings.rollout.n, ((asked,),))
    known = {table.name: _newest(run, table) for table in (RECIPES, SCORERS)}
    raise RegistryError(f"compare: no recipe and no scorer of task {run.task} is called {asked}; there are {known}")


def _json(run: Run, table: Table, asked: str) -> dict[str, Any] | None:
    """What an id stands for, in one of the two tables."""
    rows = run.lake.read(table).where((F.col(table.key[0]) == asked) & (F.col("task") == run.task))
    found = rows.select("json").head(1)
    return json.loads(found[0]["json"]) if found else None


def _newest(run: Run, table: Table) -> list[str]:
    rows = run.lake.read(table).where(F.col("task") == run.task).orderBy(F.desc("created_at")).limit(_EXAMPLES)
    return [row[table.key[0]] for row in rows.collect()]


def _known(run: Run, side: Side, split: str) -> tuple[Known, list[Case]]:
    """What a side says of the labelled videos of a split, and those videos."""
    within, cases = labelled.labelled(run, f"labelled-{side.id}", scope.of_split(run, split, side.recipe))
    if side.kind == "scorer":
        given: Sequence[Any] = labelled.scores_of(run, within, cases, side.id)
        whole = [score is not None for score in given]
    else:
        given = labelled.traces_of(run, within, cases, side.recipe.id, side.k)
        whole = [len(own) == side.k for own in given]
    found = {case.video_id: own for case, own, is_whole in zip(cases, given, whole, strict=True) if is_whole}
    return Known(side, within, found), cases


def _cost(run: Run, known: Known) -> dict[str, float]:
    """Tokens generated for a video, and seconds of waves a video took, as they were measured when it was made; of a scorer
    for the traces that it looked at, which is not as many of every video where it is adaptive."""
    side, looked_at = known.side, float(known.side.k)
    if side.kind == "scorer":
        scores = known.scope.of(run.lake.read(SCORES).where(F.col("scorer_id") == side.id))
        looked_at = float(scores.agg(F.avg("rollouts")).collect()[0][0] or side.k)
    total = {"tokens_per_video": 0.0, "seconds_per_video": 0.0}
    for recipes in side.made_by:
        mine = F.col("recipe_id").isin(*recipes)
        tokens = known.scope.of(run.lake.read(TRACES).where(mine)).agg(F.avg("tokens")).collect()[0][0]
        versions = F.col("versions")
        waves = run.lake.read(RUNS).where(
            F.col("event").startswith("wave ")
            & (versions["recipe_id"].isin(*recipes) | versions["review_recipe_id"].isin(*recipes))
        )
        rows = F.coalesce(F.col("counts")["rollouts"], F.lit(0)) + F.coalesce(F.col("counts")["reviews"], F.lit(0))
        seconds = waves.where(rows > 0).agg(F.sum("seconds") / F.sum(rows)).collect()[0][0]
        total["tokens_per_video"] += float(tokens or 0.0) * looked_at
        total["seconds_per_video"] += float(seconds or 0.0) * looked_at
    return total


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

"""What the lake says of a job's work, where there is a lake to ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pyspark.sql import functions as F

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps.recipes import Recipe
from jobs.steps.rollouts import measured_rate, missing
from jobs.steps.scope import Scope, oldest
from lake import storage, table
from lake.registry import RegistryError
from schemas.runs import RUNS
from schemas.tables import TABLES

Found = TypeVar("Found")


def counted(run: Run, count: Callable[[], Found]) -> tuple[Found | None, str | None]:
    """What `count` finds in the lake, or why nothing can be found there. A lake that is not there starts no Spark."""
    try:
        why = _absent(run.lake.root)
        return (None, why) if why else (count(), None)
    except (UsageError, RegistryError, storage.StoreError, table.LakeError) as error:
        return None, str(error).splitlines()[0]


def _absent(root: str) -> str | None:
    if not storage.children(storage.join(root, "tables")):
        return "no lake there yet: `deepintuit ingest` makes one"
    for wanted in TABLES:
        table.check_version(wanted, root)
    return None


def pending(run: Run, recipe: Recipe, k: int, scope: Scope) -> tuple[int, int]:
    """Videos that lack rollouts, as many as the run may take on, and how many they lack."""
    if not scope.count:
        return 0, 0
    rows = missing(run, recipe, k, scope).localCheckpoint()
    if run.budget.max_videos is not None:
        chosen = oldest(rows.select("video_id", "ingested_at").distinct(), run.budget.max_videos)
        rows = rows.join(chosen.select("video_id"), "video_id", "left_semi")
    videos, rollouts = rows.agg(F.count_distinct("video_id"), F.sum(F.size("missing"))).collect()[0]
    return videos, rollouts or 0


def measured(run: Run, recipe: Recipe) -> tuple[float | None, float | None]:
    """Rollouts a second of the last waves of a recipe, all engines together, and tokens that a rollout had; None if there
    was no wave."""
    waves = run.lake.read(RUNS).where(
        F.col("event").startswith("wave ") & (F.col("versions")["recipe_id"] == recipe.id)
    )
    counts = F.col("counts")
    drawn = waves.where(counts["rollouts"] > 0).agg(
        (F.sum(counts["tokens"]) / F.sum(counts["rollouts"])).alias("tokens")
    )
    return measured_rate(run, recipe), drawn.collect()[0]["tokens"]

"""Teachers: the recipes behind their traces, and whose traces `align` learns from."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import Row
from pyspark.sql import functions as F

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps.recipes import Recipe
from models import identity
from schemas.recipes import RECIPES


def recipe_of(run: Run, teacher: str, version: dict[str, Any]) -> Recipe:
    """Identity of what a teacher says: who, how it is read, and what names its source as it is now. So what comes of a
    corrected file is a recipe of its own, and replaces the former one by being newer."""
    value = identity.teacher_recipe(
        teacher=teacher,
        source=run.settings.ingest.source,
        labels=list(run.labels),
        grammar=run.settings.rollout.grammar,
        version=version,
    )
    return Recipe(identity.digest(value), value, "")


def known(run: Run) -> list[Row]:
    """Recipes of teachers of this task as rows (recipe_id, json, created_at), newest first."""
    recipes = run.lake.read(RECIPES).where(F.col("task") == run.task)
    teachers = recipes.where(F.get_json_object("json", "$.origin") == "teacher")
    return teachers.select("recipe_id", "json", "created_at").orderBy(F.desc("created_at"), "recipe_id").collect()


def chosen(run: Run, recipe_id: str | None) -> Recipe:
    """The teacher's recipe of that id, the newest where none is named.

    Raises UsageError where there is none, and where its traces were read by another grammar or for other labels.
    """
    rows = known(run)
    found = next((row for row in rows if recipe_id in (None, row["recipe_id"])), None)
    if found is None:
        asked = f"--traces {recipe_id}: expected the recipe of a teacher" if recipe_id else "expected teacher traces"
        raise UsageError(
            f"align: {asked} of the task {run.task}, found {', '.join(row['recipe_id'] for row in rows) or 'none'}: "
            "`deepintuit teach` takes some in"
        )
    value = json.loads(found["json"])
    ours = {"grammar": run.settings.rollout.grammar, "labels": list(run.labels)}
    for name, wanted in ours.items():
        if value[name] != wanted:
            raise UsageError(
                f"align: expected teacher traces with the {name} {wanted}, found {value[name]} in {found['recipe_id']} of "
                f"{value['teacher']}: run `deepintuit teach` under these settings, or name others with --traces"
            )
    return Recipe(found["recipe_id"], value, "")

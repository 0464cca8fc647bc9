"""A scorer: a calibrator with the traces it looks at, and the rule that decides over its probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps.deciding import Rule
from jobs.steps.recipes import Recipe
from models import identity
from schemas.decisions import DECISIONS
from schemas.label_set import LabelSet


@dataclass(frozen=True)
class Scorer:
    """`id` names calibrator and traces; `rule`, with an id of its own, what is made of the probabilities."""

    id: str
    json: dict[str, Any]
    manifest: dict[str, Any]
    rule: Rule
    rule_id: str

    @property
    def recipes(self) -> list[Recipe]:
        """Of the rollouts that it takes, in order: each is about the traces of the one before."""
        return [_recipe(found) for found in (self.manifest.get("reviewed"), self.manifest) if found]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the reasoning traces."""
        return self.recipes[0]

    @property
    def looks_at(self) -> list[tuple[Recipe, int]]:
        """The traces that its calibrator looks at: steps of its plan, reviews, or reviews beside what they are about."""
        if self.is_adaptive:
            return self.plan
        seen = self.recipes if self.manifest["kind"] == "both" else self.recipes[-1:]
        return [(recipe, self.rollouts) for recipe in seen]

    @property
    def plan(self) -> list[tuple[Recipe, int]]:
        """The rollouts that it may take of the reasoning model, step by step; one step unless it is adaptive."""
        return [(_recipe(step), step["rollouts"]) for step in self.manifest.get("plan", ())] or [
            (self.recipe, self.rollouts)
        ]

    @property
    def at_most(self) -> list[tuple[Recipe, int]]:
        """Each recipe of its plan with all rollouts that a video may come to have."""
        return [
            (recipe, max(k for of, k in self.plan if of.id == recipe.id))
            for recipe in {r.id: r for r, _ in self.plan}.values()
        ]

    @property
    def widest(self) -> tuple[Recipe, int]:
        """The step of its plan with the most rollouts of one recipe, the last of those."""
        return max(reversed(self.plan), key=lambda step: step[1])

    @property
    def is_adaptive(self) -> bool:
        return len(self.plan) > 1

    @property
    def rollouts(self) -> int:
        """How many traces of a video it looks at (K), at least."""
        return self.manifest["rollouts"]

    @property
    def versions(self) -> dict[str, str]:
        """The ids that its scores and decisions rest on."""
        return {
            "recipe_id": self.recipe.id,
            "calibrator_id": self.manifest["calibrator_id"],
            "scorer_id": self.id,
            "rule_id": self.rule_id,
        }


def of_manifest(manifest: dict[str, Any], rule: Rule, labels: LabelSet) -> Scorer:
    """The scorer of a registered calibrator under a decision rule.

    Raises UsageError for a calibrator that was trained when the task's labels were others, or of the other mode.
    """
    trained = manifest.get("mode", "exclusive")
    if trained != labels.mode:
        raise UsageError(
            f"calibrator {manifest['calibrator_id']}: expected one of {labels.mode} labels, as `mode` in the task's file of "
            f"labels says, found one of {trained} labels; calibrate and promote again, or set `mode: {trained}`"
        )
    if set(manifest["labels"]) != set(labels.slugs):
        gone, new = set(manifest["labels"]) - set(labels.slugs), set(labels.slugs) - set(manifest["labels"])
        told = [f"{what} {', '.join(sorted(some))}" for what, some in (("without", gone), ("with", new)) if some]
        raise UsageError(
            f"calibrator {manifest['calibrator_id']}: expected one of the labels that the task has now, found one of "
            f"others: the task is now {' and '.join(told)}; roll out, calibrate and promote again, or put the labels back"
        )
    value = identity.scorer(
        recipes=[
            recipe["recipe_id"]
            for recipe in (manifest.get("reviewed"), *(manifest.get("plan") or [manifest]))
            if recipe
        ],
        rollouts=manifest["rollouts"],
        calibrator=manifest["calibrator"],
        calibration=manifest["calibration"],
    )
    return Scorer(identity.digest(value), value, manifest, rule, identity.digest(rule))


def _recipe(found: dict[str, Any]) -> Recipe:
    return Recipe(found["recipe_id"], found["recipe"], found["model_path"], found["adapter_path"])


def live(run: Run) -> Scorer:
    """What promote made live. Raises RegistryError before the first promote, UsageError as `of_manifest` does."""
    versions = run.lake.registry.live(run.task)
    manifest = run.lake.registry.calibrator(run.task, versions["calibrator_id"])
    return of_manifest(manifest, versions["rule"], run.label_set)


def shadow(run: Run) -> Scorer | None:
    """What scores beside the live one; None where nothing does. Raises as `live`."""
    versions = run.lake.registry.shadow(run.task)
    if versions is None:
        return None
    manifest = run.lake.registry.calibrator(run.task, versions["calibrator_id"])
    return of_manifest(manifest, versions["rule"], run.label_set)


def decided_by(run: Run, scorer: Scorer) -> DataFrame:
    """Decisions of a scorer under its rule."""
    return run.lake.read(DECISIONS).where(_is_of(scorer.id, scorer.rule_id))


def decided_by_promoted(run: Run) -> DataFrame:
    """Decisions of every pair of scorer and rule of the task that is or was live; a candidate's are not among them."""
    pairs = [_is_of(pair["scorer_id"], pair["rule_id"]) for pair in run.lake.registry.promotions(run.task)]
    return run.lake.read(DECISIONS).where(reduce(or_, pairs, F.lit(False)))


def _is_of(scorer_id: str, rule_id: str) -> Column:
    return (F.col("scorer_id") == scorer_id) & (F.col("rule_id") == rule_id)

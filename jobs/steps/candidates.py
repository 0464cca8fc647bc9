"""What can be tried as a calibrator of one scope of labelled videos: the tempered vote always, and other kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import reviewing, scope, training
from jobs.steps.examples import gather, labelled
from jobs.steps.facets import clusters
from jobs.steps.recipes import Recipe
from jobs.steps.rollouts import roll_out
from jobs.steps.scope import Scope
from jobs.steps.traced import traced
from models.calibration import crossfit
from models.calibration.both import BothSpec
from models.calibration.crossfit import Examples, Fit, HeldOut
from models.calibration.effort import EffortSpec, Step
from models.calibration.features import TRACE_FIELDS, FeatureSpec
from models.calibration.reviewer import ReviewCalibrator
from models.calibration.text import TextSpec
from models.language.review import SAID
from schemas.traces import TRACES

_JUDGING = 0  # the fold that a calibrator which watches the video does not learn from
_FOLDS_OF_STEPS = 3
_FIELDS = {"text": ("text",), "vlm": SAID, "both": SAID}  # of traces, beside those that every calibrator sees


@dataclass(frozen=True)
class Given:
    """What all candidates are made from. recipe: of the traces; k: of each video; plain: features as the vote sees them;
    folds: parts of the videos, of which each is judged by what the others teach."""

    recipe: Recipe
    k: int
    scope: Scope
    rows: DataFrame
    plain: FeatureSpec
    folds: int


@dataclass(frozen=True)
class Candidate:
    """recipe: of the traces that it looks at; rows, examples: that it is judged by; fit: how it learns from those of other
    folds; vote: what the vote says of the same videos, None for the vote itself."""

    recipe: Recipe
    rows: DataFrame
    examples: Examples
    fit: Fit
    vote: HeldOut | None = None


def given(run: Run, mine: Scope, recipe: Recipe, k: int, folds: int) -> Given:
    """The labelled videos of a scope with their traces, as calibrate.kind needs them."""
    fields = (*TRACE_FIELDS, *_FIELDS.get(run.settings.calibrate.kind, ()))
    rows = rows_of(run, mine, [(recipe, k)], folds, fields)
    return Given(recipe, k, mine, rows, FeatureSpec(run.labels, 0, run.label_set.independent), folds)


def rows_of(
    run: Run, mine: Scope, plan: Sequence[tuple[Recipe, int]], folds: int, fields: Sequence[str] = TRACE_FIELDS
) -> DataFrame:
    """Examples (see steps/examples.py) with all traces of a plan, as of now: a file of the run's own."""
    whole = _whole(run, mine, plan, tuple(dict.fromkeys(fields)))
    rows = labelled(
        whole.join(mine.videos.select(*scope.KEY, "uri", "input_text"), list(scope.KEY)),
        run.lake.view("current_labels").where(F.col("task") == run.task),
        clusters(run),
        run.label_set,
        folds,
    )
    return _kept(run, "-".join(["examples", *(recipe.id for recipe, _ in plan)]), rows)


def _whole(run: Run, mine: Scope, plan: Sequence[tuple[Recipe, int]], fields: Sequence[str]) -> DataFrame:
    steps = [(recipe.id, k) for recipe, k in plan]
    traces = run.lake.read(TRACES).where(F.col("recipe_id").isin(*{recipe_id for recipe_id, _ in steps}))
    return traced(mine.of(traces), steps, run.settings.waves.max_attempts, fields)


def _kept(run: Run, name: str, rows: DataFrame) -> DataFrame:
    path = run.path(name)
    rows.write.mode("overwrite").parquet(path)
    return run.lake.spark.read.parquet(path)


def voting(run: Run, of: Given) -> Candidate:
    """The tempered vote, whose features tell of everybody's traces what there is to tell."""
    return Candidate(of.recipe, of.rows, gather(run, "features", of.rows, of.plain), crossfit.vote(of.plain, of.k))


def reading(run: Run, of: Given, vote: HeldOut | None) -> Candidate:
    """One that reads traces: their features alone (linear), or their words, too (text)."""
    calibrate, rule = run.settings.calibrate, run.settings.labels.rule or ""
    if calibrate.kind == "text":
        spec = TextSpec(run.labels, 0, run.label_set.independent, rule, of.recipe.prompts)
        return Candidate(of.recipe, of.rows, gather(run, "texts", of.rows, spec), crossfit.text(spec), vote)
    plain = replace(of.plain, hashed_words=calibrate.hashed_words, rule=rule)
    fit = crossfit.linear(plain, calibrate.l2)
    return Candidate(of.recipe, of.rows, gather(run, "linear", of.rows, plain), fit, vote)


def adapting(run: Run, of: Given, plan: Sequence[tuple[Recipe, int]]) -> Candidate:
    """One that takes few traces first, and more where they settle nothing; it learns from videos that have all of them."""
    if run.label_set.independent or len(plan) < 2:
        raise UsageError(
            "calibrate.kind: adaptive needs a task of exclusive labels and effort.steps, two at least, such as "
            "`--set 'effort.steps=[{n: 2}, {n: 8}]'`"
        )
    calibrate = run.settings.calibrate
    spec = EffortSpec(
        run.labels,
        0,
        rule=run.settings.labels.rule or "",
        steps=tuple(Step(recipe.id, k) for recipe, k in plan),
        agreement=run.settings.effort.agreement,
    )
    whole = _whole(run, of.scope, plan, spec.reads)
    rows = _kept(run, f"effort-{of.recipe.id}", of.rows.drop("traces").join(whole.drop("ingested_on"), list(scope.KEY)))
    same = of.rows.join(rows.select(*scope.KEY), list(scope.KEY), "left_semi")
    if rows.isEmpty():
        raise UsageError(
            "calibrate: no labelled video of the split calibrate has all traces of effort.steps: "
            "`deepintuit rollout --split calibrate` with the same steps makes them"
        )
    if rows.select("fold").distinct().count() < _FOLDS_OF_STEPS:
        raise UsageError(
            f"calibrate.kind: adaptive: expected labelled videos in {_FOLDS_OF_STEPS} folds at least, as what is said of a "
            f"fold rests on others that judge each other, found fewer: label more, or raise calibrate.folds ({of.folds})"
        )
    vote = crossfit.cross_fit(gather(run, "voted", same, of.plain), crossfit.vote(of.plain, of.k), run.labels)
    fit = crossfit.effort(spec, calibrate.l2, run.settings.decide.coverage)
    return Candidate(of.recipe, rows, gather(run, "effort", rows, spec), fit, vote)


def watching(run: Run, of: Given, out: Path | None, seed: int) -> dict[str, Candidate]:
    """A model that watches the video learns from the traces of all folds but the first, and reviews those of that one. Of
    kind both there is, beside the one that goes by its reviews alone, one that reads what they are about as well."""
    kind = run.settings.calibrate.kind
    if run.label_set.independent:
        raise UsageError(
            f"calibrate.kind: {kind} answers with one label: expected a task of exclusive labels; take linear"
        )
    if of.recipe.imported:
        raise UsageError(f"calibrate.kind: {kind} watches videos: expected traces of this lake's own; take text")
    if out is None:
        raise UsageError(
            f"calibrate.kind: {kind} trains a model: expected --out FOLDER, which goes on where it stopped"
        )
    judging, taught = of.rows.where(F.col("fold") == _JUDGING), of.rows.where(F.col("fold") != _JUDGING)
    if judging.isEmpty() or taught.isEmpty():
        raise UsageError(
            "calibrate: expected videos of several sources, to learn from some and be judged by others, found all of one "
            f"in {of.rows.count()} videos: label more of the split calibrate"
        )
    with training.made(run, out) as folder:
        ids = [row["video_id"] for row in of.rows.select("video_id").collect()]
        reviews = reviewing.learn(run, folder, of.recipe, taught, ids, seed)
    theirs = scope.fix(run, "judging", of.scope.videos.join(judging.select(*scope.KEY), list(scope.KEY), "left_semi"))
    roll_out(run, reviews, of.k, theirs)
    # A review that its contract refused is one that nobody is judged by.
    own = rows_of(run, theirs, [(reviews, of.k)], of.folds)
    same = judging.join(own.select(*scope.KEY), list(scope.KEY), "left_semi")
    ours, votes = gather(run, "reviewed", own, of.plain), gather(run, "voted", same, of.plain)
    _same(ours, votes)
    parts = ours.cluster // of.folds % of.folds  # for its temperature
    vote = crossfit.cross_fit(replace(votes, fold=parts), crossfit.vote(of.plain, of.k), run.labels)
    made = {"vlm": Candidate(reviews, own, replace(ours, fold=parts), lambda _: ReviewCalibrator(of.plain), vote)}
    if kind == "both":
        spec = BothSpec(run.labels, 0, False, run.settings.labels.rule or "", reviews.id)
        read = crossfit.text(spec.text)(gather(run, "read", taught, spec.text))
        rows = rows_of(run, theirs, [(of.recipe, of.k), (reviews, of.k)], of.folds, spec.reads)
        beside = gather(run, "both", rows, spec)
        _same(beside, votes)
        made["both"] = Candidate(reviews, rows, replace(beside, fold=parts), crossfit.both(spec, read), vote)
    return made


def _same(some: Examples, votes: Examples) -> None:
    if not np.array_equal(some.video, votes.video):
        raise RuntimeError("calibrate: what is judged by are other videos than those of the vote")

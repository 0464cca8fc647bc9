"""calibrate: train the calibrator on the traces of the split `calibrate` and register it as a candidate.

    deepintuit calibrate --conf conf/local.yaml

Runs no rollouts: `deepintuit rollout --split calibrate` makes them. Beside what calibrate.kind asks for, the tempered vote
is registered: what every other calibrator has to beat in NLL, on videos that it has not seen, by more than chance. Where it
does not, the vote is nominated, and `promote` takes that. A candidate is live only after `promote`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import recipes, reviewing, scope, training
from jobs.steps.examples import gather, labelled
from jobs.steps.facets import clusters
from jobs.steps.metrics import metric_rows, write_once
from jobs.steps.recipes import Recipe
from jobs.steps.rollouts import roll_out
from jobs.steps.scope import Scope
from jobs.steps.traced import traced
from models.calibration import calibrator, crossfit
from models.calibration.crossfit import Examples, Fit, HeldOut
from models.calibration.features import TRACE_FIELDS, FeatureSpec
from models.calibration.probabilities import is_extreme
from models.calibration.rare import ENOUGH
from models.calibration.reviewer import ReviewCalibrator
from models.calibration.rules import Judged
from models.calibration.worth import VOTE, Worth, worth
from models.language.review import SAID
from schemas.traces import STATUSES, TRACES

TAKES_BUDGET = False
_NAMES = 5  # labels in a message
_MOST_VIDEOS = 200_000  # the driver holds their features; more would teach so small a model nothing
_JUDGING = 0  # the fold that a calibrator which watches the video does not learn from
_MOSTLY = 0.5  # share of the traces
_HONEST = "not below 0 for sure: the vote is the honest choice, `promote` takes no other without --force"


@dataclass(frozen=True)
class Candidate:
    """recipe: of the traces that it looks at; examples: that it is judged by; fit: how it learns from those of other folds;
    vote: what the vote says of the same videos, None for the vote itself."""

    recipe: Recipe
    examples: Examples
    fit: Fit
    vote: HeldOut | None = None


def run(run: Run, arguments: argparse.Namespace) -> None:
    settings, k = run.settings, run.settings.rollout.n
    kind = settings.calibrate.kind
    recipe = recipes.of_settings(settings)
    mine = scope.of_split(run, "calibrate", recipe)
    if mine.count > _MOST_VIDEOS:  # about so many, always the same ones
        share = F.pmod(F.xxhash64("video_id"), F.lit(mine.count)) < _MOST_VIDEOS
        mine = scope.fix(run, "calibrate-on", mine.videos.where(share))
    rows = examples_of(run, mine, recipe, SAID if kind == "vlm" else TRACE_FIELDS)
    plain = FeatureSpec(run.labels, 0, run.label_set.independent)
    # The vote sees the features that all specs begin with.
    spec = plain
    if kind == "linear":
        spec = replace(plain, hashed_words=settings.calibrate.hashed_words, rule=settings.labels.rule or "")
    examples = gather(run, "features", rows, spec)
    run.record.add({"videos_train": len(examples), "clusters_train": len(np.unique(examples.cluster))})
    if not len(examples):
        raise UsageError(
            f"calibrate: no labelled video of the split calibrate has its {k} rollouts under recipe {recipe.id}; "
            "run `deepintuit ingest --labels ...` and `deepintuit rollout --split calibrate` first"
        )
    say_traces(run, examples, spec)
    voting = crossfit.vote(plain, k)
    vote = crossfit.cross_fit(examples, voting, run.labels)
    candidates = {VOTE: Candidate(recipe, examples, voting)}
    if kind == "linear":
        candidates[kind] = Candidate(recipe, examples, crossfit.linear(spec, settings.calibrate.l2), vote)
        say_rare(run, examples, spec)
    elif kind == "vlm":
        candidates[kind] = watching(run, arguments, recipe, mine, rows, plain)
    held_out = {
        name: vote if name == VOTE else crossfit.cross_fit(of.examples, of.fit, run.labels)
        for name, of in candidates.items()
    }
    found = {name: worth_of(of, held_out[name], len(run.labels)) for name, of in candidates.items()}
    best = next((name for name, of in found.items() if of and of.beats_vote and of.beats_constant), VOTE)
    figures: list[dict[str, Any]] = []
    for name, candidate in candidates.items():
        made, known = candidate.fit(candidate.examples), found[name]
        made = replace(made, temperature=known.temperature) if known else made
        calibrator_id = register(run, candidate, recipe, made, known, held_out[name])
        run.record.results[name] = {"calibrator_id": calibrator_id} | (known.json() if known else {})
        figures += metrics_of(run, name, calibrator_id, known, len(candidate.examples))
    run.lake.registry.nominate(run.task, run.record.results[best]["calibrator_id"])
    run.record.versions |= {"recipe_id": recipe.id, "calibrator_id": run.record.results[best]["calibrator_id"]}
    write_once(run, figures)
    say(run, found, {name: len(of.examples) for name, of in candidates.items()}, best)


def examples_of(run: Run, mine: Scope, recipe: Recipe, fields: Sequence[str]) -> DataFrame:
    """The labelled videos of a scope with their traces under a recipe, as of now: a file of the run's own."""
    settings = run.settings
    traces = mine.of(run.lake.read(TRACES).where(F.col("recipe_id") == recipe.id))
    whole = traced(traces, recipe.id, settings.rollout.n, settings.waves.max_attempts, tuple({*fields, *TRACE_FIELDS}))
    rows = labelled(
        whole.join(mine.videos.select(*scope.KEY, "uri", "input_text"), list(scope.KEY)),
        run.lake.view("current_labels").where(F.col("task") == run.task),
        clusters(run),
        run.label_set,
        settings.calibrate.folds,
    )
    path = run.path(f"examples-{recipe.id}")
    rows.write.mode("overwrite").parquet(path)
    return run.lake.spark.read.parquet(path)


def watching(
    run: Run, arguments: argparse.Namespace, recipe: Recipe, mine: Scope, rows: DataFrame, plain: FeatureSpec
) -> Candidate:
    """A model that watches the video learns from the traces of all folds but the first, and reviews those of that one.

    rows: of all folds; plain: features as the vote sees them.
    """
    if run.label_set.independent:
        raise UsageError("calibrate.kind: vlm answers with one label: expected a task of exclusive labels; take linear")
    if arguments.out is None:
        raise UsageError("calibrate.kind: vlm trains a model: expected --out FOLDER, which goes on where it stopped")
    judging, taught = rows.where(F.col("fold") == _JUDGING), rows.where(F.col("fold") != _JUDGING)
    if judging.isEmpty() or taught.isEmpty():
        raise UsageError(
            "calibrate: expected videos of several sources, to learn from some and be judged by others, found all of one "
            f"in {rows.count()} videos: label more of the split calibrate"
        )
    with training.made(run, arguments.out) as out:
        ids = [row["video_id"] for row in rows.select("video_id").collect()]
        reviews = reviewing.learn(run, out, recipe, taught, ids, arguments.seed)
    theirs = scope.fix(run, "judging", mine.videos.join(judging.select(*scope.KEY), list(scope.KEY), "left_semi"))
    roll_out(run, reviews, run.settings.rollout.n, theirs)
    # A review that its contract refused is one that nobody is judged by.
    own = examples_of(run, theirs, reviews, TRACE_FIELDS)
    same = judging.join(own.select(*scope.KEY), list(scope.KEY), "left_semi")
    ours, votes = gather(run, "reviewed", own, plain), gather(run, "voted", same, plain)
    if not np.array_equal(ours.targets, votes.targets):
        raise RuntimeError("calibrate: what is judged by are other videos than those of the vote")
    folds = run.settings.calibrate.folds
    parts = ours.cluster // folds % folds  # for its temperature
    vote = crossfit.cross_fit(replace(votes, fold=parts), crossfit.vote(plain, run.settings.rollout.n), run.labels)
    return Candidate(reviews, replace(ours, fold=parts), lambda _: ReviewCalibrator(plain), vote)


def worth_of(candidate: Candidate, own: HeldOut | None, labels: int) -> Worth | None:
    """What a candidate is worth; nothing is known where all videos are in one fold."""
    return None if own is None else worth(own, candidate.vote, candidate.examples, labels)


def register(
    run: Run,
    candidate: Candidate,
    recipe: Recipe,
    made: calibrator.Calibrator,
    found: Worth | None,
    own: HeldOut | None,
) -> str:
    """Keep a candidate in the registry, with what is known of it now; returns its id. recipe: of the reasoning traces."""
    of = candidate.examples
    held_out = None if own is None else Judged(own.probs, of.targets, of.cluster).packed()
    manifest = (
        calibrator.manifest(made, candidate.recipe.id, run.settings.rollout.n)
        | _json(candidate.recipe)
        | {
            "task": run.task,
            "run_id": run.record.run_id,
            "created_at": datetime.now(UTC).isoformat(),
            "trained_on": {name: run.record.counts[name] for name in ("videos_train", "clusters_train")},
            "worth": found and found.json(),
        }
        | ({"reviewed": _json(recipe)} if candidate.recipe.reviewed else {})
    )
    run.lake.registry.save(run.task, manifest, calibrator.weights(made), held_out)
    return manifest["calibrator_id"]


def _json(recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe_id": recipe.id,
        "recipe": recipe.json,
        "model_path": recipe.model_path,
        "adapter_path": recipe.adapter_path,
    }


def metrics_of(run: Run, kind: str, calibrator_id: str, found: Worth | None, videos: int) -> list[dict[str, Any]]:
    """Rows of the table metrics: a candidate's figures, of so many videos, and how far its NLL is from others'."""
    if found is None:
        return []
    known: dict[str, Any] = {"split": "calibrate", "videos": videos}
    rows = metric_rows(run, found.figures(), kind, version=calibrator_id, **known)
    for minus, less in (("constant", found.minus_constant), (VOTE, found.minus_vote)):
        if less is not None:
            rows += metric_rows(run, {"nll": less}, kind, version=calibrator_id, minus=minus, **known)
    return rows


def say_traces(run: Run, examples: Examples, spec: FeatureSpec) -> None:
    """Traces without an answer teach nothing; where most are, that is said."""
    names = spec.names
    shares = {name: examples.features[:, names.index(f"status/{name}")].mean() for name in STATUSES}
    if shares["ok"] < _MOSTLY:
        others = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if name != "ok" and share > 0)
        run.record.warn(
            f"only {shares['ok']:.0%} of the traces have a usable answer ({others}): look at them before anything else, "
            '`deepintuit sql "select status, text from traces limit 5"`; the prompt, the grammar or rollout.max_tokens may '
            "not fit the model"
        )


def say_rare(run: Run, examples: Examples, spec: FeatureSpec) -> None:
    """Labels with too few videos."""
    rare = crossfit.rare(spec, examples)
    for what, rows in (("with", rare.having), ("without", rare.lacking)):
        if rows:
            run.record.warn(
                f"fewer than {ENOUGH} videos to train on {what} the label {_listed(rows)}: there the calibrator mostly "
                "believes the traces; label more such videos of the split calibrate"
            )


def say(run: Run, found: Mapping[str, Worth | None], judging: Mapping[str, int], best: str) -> None:
    """What came of it, and whether it is worth promoting; judging: videos that each was judged by."""
    clusters = run.record.counts["clusters_train"]
    for kind, of in found.items():
        if of is None:
            run.record.warn(
                f"{kind}: trained on {judging[kind]} videos of {clusters} sources, all in one fold: the temperature is 1 "
                "and nothing says how good it is; label more videos of the split calibrate"
            )
            continue
        run.record.say(
            f"{kind}: NLL {of.nll:.3f}, accuracy {of.accuracy:.3f}, temperature {of.temperature:.2f}, on {judging[kind]} "
            "videos "
            f"that it had not seen ({run.settings.calibrate.folds} folds)"
        )
        if is_extreme(of.temperature):
            run.record.warn(
                f"{kind}: its temperature is extreme ({of.temperature:.2f}): the traces say nothing of the labels, or are "
                "right in every case"
            )
        if not of.beats_constant:
            run.record.warn(
                f"{kind}: not known to be better than saying of every video how often each label comes (NLL "
                f"{of.nll - of.minus_constant.value:.3f}): `promote` refuses it"
            )
        if of.minus_vote:
            what = "the best" if kind == best else _HONEST
            run.record.say(f"{kind} minus vote, NLL: {of.minus_vote}; {what}")
    if (known := found[best]) and not known.beats_constant:
        run.record.say(f"calibrator {run.record.versions['calibrator_id']} ({best}): nothing better was found")
    else:
        run.record.say(
            f"calibrator {run.record.versions['calibrator_id']} ({best}): `deepintuit promote` makes it live"
        )


def _listed(rows: dict[str, int]) -> str:
    """Labels with their rows, in the order of the task; not more than a line holds."""
    first = ", ".join(f"{label} ({n})" for label, n in list(rows.items())[:_NAMES])
    return first if len(rows) <= _NAMES else f"{first} and {len(rows) - _NAMES} more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the model of kind vlm; goes on where it stopped")
    parser.add_argument("--seed", type=int, default=0, help="of the model of kind vlm")


def main() -> int:
    return cli.main(["calibrate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

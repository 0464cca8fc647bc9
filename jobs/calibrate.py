"""calibrate: train the calibrator on the traces of the split `calibrate` and register it as a candidate.

    deepintuit calibrate --conf conf/local.yaml

Runs no rollouts: `deepintuit rollout --split calibrate` makes them. Beside what calibrate.kind asks for, the tempered vote
is registered: what every other calibrator has to beat in NLL, on videos that it has not seen, by more than chance. Where it
does not, the vote is nominated, and `promote` takes that. A candidate is live only after `promote`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
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
from jobs.steps.scoring import traced
from models.calibration import calibrator, crossfit
from models.calibration.crossfit import Examples, Fit, HeldOut
from models.calibration.features import FeatureSpec, vector
from models.calibration.probabilities import is_extreme
from models.calibration.rare import ENOUGH
from models.calibration.reviewer import ReviewerCalibrator
from models.calibration.rules import Judged
from models.calibration.worth import VOTE, Worth, worth
from schemas.traces import STATUSES, TRACES

TAKES_BUDGET = False
_NAMES = 5  # labels in a message
_MOST_VIDEOS = 200_000  # the driver holds their features; more would teach so small a model nothing
_JUDGING = 0  # the fold that a calibrator which watches the video does not learn from
_MOSTLY = 0.5  # share of the traces
_HONEST = "not below 0 for sure: the vote is the honest choice, `promote` takes no other without --force"


@dataclass(frozen=True)
class Candidate:
    """Examples that it is judged by, and how it learns from those of other folds."""

    examples: Examples
    fit: Fit


def run(run: Run, arguments: argparse.Namespace) -> None:
    settings, k = run.settings, run.settings.rollout.n
    kind = settings.calibrate.kind
    recipe = recipes.of_settings(settings)
    mine = scope.of_split(run, "calibrate", recipe)
    if mine.count > _MOST_VIDEOS:  # about so many, always the same ones
        share = F.pmod(F.xxhash64("video_id"), F.lit(mine.count)) < _MOST_VIDEOS
        mine = scope.fix(run, "calibrate-on", mine.videos.where(share))
    traces = mine.of(run.lake.read(TRACES).where(F.col("recipe_id") == recipe.id))
    rows = labelled(
        traced(traces, recipe.id, k, settings.waves.max_attempts, kind).join(
            mine.videos.select(*scope.KEY, "uri", "input_text"), list(scope.KEY)
        ),
        run.lake.view("current_labels").where(F.col("task") == run.task),
        clusters(run),
        run.label_set,
        settings.calibrate.folds,
    )
    plain = FeatureSpec(run.labels, 0, run.label_set.independent)
    # The vote sees the features that all specs begin with.
    spec = plain
    if kind == "linear":
        spec = replace(plain, hashed_words=settings.calibrate.hashed_words, rule=settings.labels.rule or "")
    examples = gather(run, "features", rows, partial(seen, spec), len(spec.names), run.label_set)
    if not len(examples):
        raise UsageError(
            f"calibrate: no labelled video of the split calibrate has its {k} rollouts under recipe {recipe.id}; "
            "run `deepintuit ingest --labels ...` and `deepintuit rollout --split calibrate` first"
        )
    say_traces(run, examples, spec)
    taught = examples if kind != "vlm" else examples.of(examples.fold != _JUDGING)
    run.record.add({"videos_train": len(taught), "clusters_train": len(np.unique(taught.cluster))})
    candidates = {VOTE: Candidate(examples, crossfit.vote(plain, k))}
    if kind == "linear":
        candidates[kind] = Candidate(examples, crossfit.linear(spec, settings.calibrate.l2))
        say_rare(run, examples, spec)
    if kind == "vlm":
        candidates = watching(run, arguments, recipe, rows, examples)
    held_out = {kind: crossfit.cross_fit(of.examples, of.fit, run.labels) for kind, of in candidates.items()}
    found = {kind: worth_of(kind, held_out, of.examples, len(run.labels)) for kind, of in candidates.items()}
    best = next((kind for kind, of in found.items() if of and of.beats_vote and of.beats_constant), VOTE)
    figures: list[dict[str, Any]] = []
    for name, candidate in candidates.items():
        made, known = candidate.fit(candidate.examples), found[name]
        made = replace(made, temperature=known.temperature) if known else made
        own = held_out[name]
        judged = None if own is None else Judged(own.probs, candidate.examples.targets)
        calibrator_id = register(run, recipe, made, known, judged)
        run.record.results[name] = {"calibrator_id": calibrator_id} | (known.json() if known else {})
        figures += metrics_of(run, name, calibrator_id, known, len(candidate.examples))
    run.lake.registry.nominate(run.task, run.record.results[best]["calibrator_id"])
    run.record.versions |= {"recipe_id": recipe.id, "calibrator_id": run.record.results[best]["calibrator_id"]}
    write_once(run, figures)
    say(run, found, {name: len(of.examples) for name, of in candidates.items()}, best)


def seen(spec: FeatureSpec, row: Mapping[str, Any]) -> np.ndarray:
    """What a light calibrator sees of a video."""
    return vector(row["traces"], spec)


def watching(
    run: Run, arguments: argparse.Namespace, recipe: Recipe, rows: DataFrame, examples: Examples
) -> dict[str, Candidate]:
    """The calibrator that watches the video, learned from all folds but the first, and the vote beside it on that one.

    rows, examples: of all folds, features as of the vote.
    """
    if run.label_set.independent:
        raise UsageError("calibrate.kind: vlm answers with one label: expected a task of exclusive labels; take linear")
    if arguments.out is None:
        raise UsageError("calibrate.kind: vlm trains a model: expected --out FOLDER, which goes on where it stopped")
    first = examples.of(examples.fold == _JUDGING)
    taught = examples.targets[examples.fold != _JUDGING]
    if not len(first) or not len(taught):
        raise UsageError(
            f"calibrate: expected videos of several sources, to learn from some and be judged by others; found "
            f"{len(taught)} videos to learn from and {len(first)} to be judged by"
        )
    with training.made(run, arguments.out) as out:
        asks = reviewing.learn(run, out, recipe, rows.where(F.col("fold") != _JUDGING), arguments.seed)
    shares = (np.bincount(taught, minlength=len(run.labels)) + 1) / (len(taught) + len(run.labels))
    made = ReviewerCalibrator(FeatureSpec(run.labels, 0), tuple(shares.tolist()), asks)
    judging = reviewing.reviewed(run, asks, rows.where(F.col("fold") == _JUDGING))
    own = gather(run, "reviews", judging, made.features, len(run.labels), run.label_set)
    folds = run.settings.calibrate.folds
    parts = own.cluster // folds % folds  # for its temperature
    vote = crossfit.vote(FeatureSpec(run.labels, 0), run.settings.rollout.n)
    return {
        VOTE: Candidate(replace(first, fold=parts), vote),
        "vlm": Candidate(replace(own, fold=parts), lambda _: made),
    }


def worth_of(kind: str, held_out: Mapping[str, HeldOut | None], examples: Examples, labels: int) -> Worth | None:
    """What a candidate is worth; nothing is known where all videos are in one fold."""
    own, vote = held_out[kind], held_out[VOTE]
    return None if own is None else worth(own, None if kind == VOTE else vote, examples, labels)


def register(run: Run, recipe: Recipe, made: calibrator.Calibrator, found: Worth | None, judged: Judged | None) -> str:
    """Keep a candidate in the registry, with what is known of it now; returns its id."""
    manifest = calibrator.manifest(made, recipe.id, run.settings.rollout.n) | {
        "task": run.task,
        "recipe": recipe.json,
        "model_path": recipe.model_path,
        "adapter_path": recipe.adapter_path,
        "run_id": run.record.run_id,
        "created_at": datetime.now(UTC).isoformat(),
        "trained_on": {name: run.record.counts[name] for name in ("videos_train", "clusters_train")},
        "worth": found and found.json(),
    }
    run.lake.registry.save(run.task, manifest, calibrator.weights(made), None if judged is None else judged.packed())
    return manifest["calibrator_id"]


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

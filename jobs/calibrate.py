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
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import recipes, scope
from jobs.steps.facets import clusters
from jobs.steps.metrics import metric_rows, write_once
from jobs.steps.recipes import Recipe
from jobs.steps.scoring import traced
from lake import parquet
from models.calibration import calibrator, crossfit
from models.calibration.crossfit import Examples, Fit, HeldOut
from models.calibration.features import FeatureSpec
from models.calibration.probabilities import is_extreme
from models.calibration.rare import ENOUGH
from models.calibration.worth import VOTE, Worth, worth
from schemas.label_set import LabelSet
from schemas.traces import STATUSES, TRACES
from udfs.calibrator import FEATURE_COLUMNS, featurize

TAKES_BUDGET = False
_NAMES = 5  # labels in a message
_MOST_VIDEOS = 200_000  # the driver holds their features; more would teach so small a model nothing
_MOSTLY = 0.5  # share of the traces
_HONEST = "not below 0 for sure: the vote is the honest choice, `promote` takes no other without --force"


def labelled(traced: DataFrame, labels: DataFrame, shared: DataFrame, wanted: LabelSet, folds: int) -> DataFrame:
    """Labelled videos with their traces: video_id, targets (for each label, 1 where it applies), fold, cluster, traces.

    shared: video_id, cluster, of videos that share a source with others: they are in one fold. Which that is depends on its
    name alone, so it stays when more arrive.
    """
    targets = F.array(*[F.array_contains("labels", label).cast("long") for label in wanted.slugs])
    own = F.coalesce("cluster", "video_id")
    rows = (
        traced.join(labels.select("video_id", "labels"), "video_id")
        .join(shared, "video_id", "left")
        .where("labels IS NOT NULL")
        .select(
            "video_id",
            targets.alias("targets"),
            F.pmod(F.xxhash64(own), F.lit(folds)).alias("fold"),
            F.xxhash64(own).alias("cluster"),
            "traces",
        )
    )
    # A label that the task has given up teaches nothing.
    return rows if wanted.independent else rows.where("aggregate(targets, 0L, (a, n) -> a + n) = 1")


def gather(run: Run, rows: DataFrame, spec: FeatureSpec) -> Examples:
    """The rows as vectors, in the order of their ids: sums in floating point depend on it."""
    made = run.path("features")
    rows.mapInArrow(featurize(spec), from_arrow_schema(FEATURE_COLUMNS)).write.mode("overwrite").parquet(made)
    parts = list(parquet.batches(made, ["video_id", "features", "targets", "fold", "cluster"]))
    ids = np.concatenate(
        [*(part.column("video_id").to_numpy(zero_copy_only=False) for part in parts), np.empty(0, object)]
    )
    order = np.argsort(ids)

    def matrix(name: str, width: int, kind: type) -> np.ndarray:
        flat = [part.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False) for part in parts]
        return np.concatenate([*flat, np.empty(0)]).astype(kind).reshape(-1, width)[order]

    def column(name: str) -> np.ndarray:
        return np.concatenate([*(part.column(name).to_numpy() for part in parts), np.empty(0, np.int64)])[order]

    applies = matrix("targets", len(spec.labels), np.int64)
    targets = applies if spec.independent else applies.argmax(1) if len(applies) else np.empty(0, np.int64)
    return Examples(matrix("features", len(spec.names), np.float64), targets, column("fold"), column("cluster"))


def run(run: Run, arguments: argparse.Namespace) -> None:
    settings, k = run.settings, run.settings.rollout.n
    recipe = recipes.of_settings(settings)
    mine = scope.of_split(run, "calibrate", recipe)
    if mine.count > _MOST_VIDEOS:  # about so many, always the same ones
        share = F.pmod(F.xxhash64("video_id"), F.lit(mine.count)) < _MOST_VIDEOS
        mine = scope.fix(run, "calibrate-on", mine.videos.where(share))
    traces = mine.of(run.lake.read(TRACES).where(F.col("recipe_id") == recipe.id))
    rows = labelled(
        traced(traces, recipe.id, k, settings.waves.max_attempts),
        run.lake.view("current_labels").where(F.col("task") == run.task),
        clusters(run),
        run.label_set,
        settings.calibrate.folds,
    )
    spec = FeatureSpec(
        run.labels, settings.calibrate.hashed_words, run.label_set.independent, settings.labels.rule or ""
    )
    examples = gather(run, rows, spec)
    run.record.add({"videos_train": len(examples), "clusters_train": len(np.unique(examples.cluster))})
    if not len(examples):
        raise UsageError(
            f"calibrate: no labelled video of the split calibrate has its {k} rollouts under recipe {recipe.id}; "
            "run `deepintuit ingest --labels ...` and `deepintuit rollout --split calibrate` first"
        )
    say_traces(run, examples, spec)
    plain = FeatureSpec(run.labels, 0, run.label_set.independent)
    # The vote sees the features that all specs begin with.
    fits: dict[str, Fit] = {VOTE: crossfit.vote(plain, k)}
    if settings.calibrate.kind == "linear":
        fits["linear"] = crossfit.linear(spec, settings.calibrate.l2)
        say_rare(run, examples, spec)
    held_out = {kind: crossfit.cross_fit(examples, fit, run.labels) for kind, fit in fits.items()}
    found = {kind: worth_of(kind, held_out, examples, len(run.labels)) for kind in fits}
    best = next((kind for kind, of in found.items() if of and of.beats_vote and of.beats_constant), VOTE)
    figures: list[dict[str, Any]] = []
    for kind, fit in fits.items():
        made, known = fit(examples), found[kind]
        made = replace(made, temperature=known.temperature) if known else made
        calibrator_id = register(run, recipe, made, known)
        run.record.results[kind] = {"calibrator_id": calibrator_id} | (known.json() if known else {})
        figures += metrics_of(run, kind, calibrator_id, known)
    run.lake.registry.nominate(run.task, run.record.results[best]["calibrator_id"])
    run.record.versions |= {"recipe_id": recipe.id, "calibrator_id": run.record.results[best]["calibrator_id"]}
    write_once(run, figures)
    say(run, found, best)


def worth_of(kind: str, held_out: Mapping[str, HeldOut | None], examples: Examples, labels: int) -> Worth | None:
    """What a candidate is worth; nothing is known where all videos are in one fold."""
    own, vote = held_out[kind], held_out[VOTE]
    return None if own is None else worth(own, None if kind == VOTE else vote, examples, labels)


def register(run: Run, recipe: Recipe, made: calibrator.Calibrator, found: Worth | None) -> str:
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
    run.lake.registry.save(run.task, manifest, calibrator.weights(made))
    return manifest["calibrator_id"]


def metrics_of(run: Run, kind: str, calibrator_id: str, found: Worth | None) -> list[dict[str, Any]]:
    """Rows of the table metrics: a candidate's figures, and how far its NLL is from others'."""
    if found is None:
        return []
    known: dict[str, Any] = {"split": "calibrate", "videos": run.record.counts["videos_train"]}
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


def say(run: Run, found: Mapping[str, Worth | None], best: str) -> None:
    """What came of it, and whether it is worth promoting."""
    counts = run.record.counts
    videos, clusters = counts["videos_train"], counts["clusters_train"]
    for kind, of in found.items():
        if of is None:
            run.record.warn(
                f"{kind}: trained on {videos} videos of {clusters} sources, all in one fold: the temperature is 1 and "
                "nothing says how good it is; label more videos of the split calibrate"
            )
            continue
        run.record.say(
            f"{kind}: NLL {of.nll:.3f}, accuracy {of.accuracy:.3f}, temperature {of.temperature:.2f}, on {videos} videos "
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
    """calibrate takes its settings from the configuration alone."""


def main() -> int:
    return cli.main(["calibrate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

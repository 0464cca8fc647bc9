"""calibrate: train the calibrator on the traces of the split `calibrate` and register it as a candidate.

    deepintuit calibrate --conf conf/local.yaml

Runs no rollouts: `deepintuit rollout --split calibrate` makes them. The candidate is live only after `promote`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import recipes, scope
from jobs.steps.figures import metric_rows, note
from jobs.steps.scoring import traced
from lake import parquet
from models.calibration.features import FeatureSpec
from models.calibration.linear import LinearCalibrator, fit_linear
from models.calibration.probabilities import fit_temperature, mean_binary_nll, mean_nll
from models.calibration.rare import ENOUGH, StandIns, stand_ins
from schemas.label_set import LabelSet
from schemas.traces import TRACES
from udfs.calibrator import FEATURE_COLUMNS, featurize

TAKES_BUDGET = False
_NAMES = 5  # labels in a message


def examples(traced: DataFrame, labels: DataFrame, wanted: LabelSet, holdout: float) -> DataFrame:
    """Labelled videos with their traces: video_id, targets (for each label, 1 where it applies), held_out, traces.

    Which videos are held out depends on their id alone, so it stays when more arrive.
    """
    targets = F.array(*[F.array_contains("labels", label).cast("long") for label in wanted.slugs])
    share = F.pmod(F.xxhash64("video_id"), F.lit(10_000)) / 10_000
    rows = (
        traced.join(labels.select("video_id", "labels"), "video_id")
        .where("labels IS NOT NULL")
        .select("video_id", targets.alias("targets"), (share < holdout).alias("held_out"), "traces")
    )
    # A label that the task has given up teaches nothing.
    return rows if wanted.independent else rows.where("aggregate(targets, 0L, (a, n) -> a + n) = 1")


def batches(folder: str, spec: FeatureSpec, held_out: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stream one part of a featurized dataset, a Parquet file at a time: (features float64 [n, D], targets int64).

    targets: [n], the index of the label; of independent labels [n, L], 1 where one applies.
    """
    for rows in parquet.batches(folder, ["features", "targets"], held_out=held_out):
        features, applies = (
            rows.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, -1)
            for name in ("features", "targets")
        )
        yield features, applies if spec.independent else applies.argmax(1)


def train(folder: str, spec: FeatureSpec, l2: float) -> tuple[LinearCalibrator, dict[str, float], StandIns]:
    """Fit weights on one part and the temperature on the other, 1 where that is empty.

    Returns the calibrator, its figures (held-out ones where videos are held out), and what stood in for rare labels.
    """
    rows = partial(batches, folder, spec, held_out=False)
    rare = stand_ins(spec, rows)
    raw = fit_linear(spec, rare.beside(rows), l2)
    # One small row per held-out video: 2 L numbers, whatever the features weigh.
    held = [
        (raw.logits(features), spec.evidence(features), targets)
        for features, targets in batches(folder, spec, held_out=True)
    ]
    if not held:
        return raw, {"temperature": raw.temperature}, rare
    logits, uncalibrated, targets = (np.concatenate(part) for part in zip(*held, strict=True))
    nll = mean_binary_nll if spec.independent else mean_nll
    temperature = fit_temperature(logits, targets, nll)
    guesses = logits >= 0 if spec.independent else logits.argmax(1)
    figures = {
        "heldout_nll_before": nll(logits, targets),
        "heldout_nll": nll(logits, targets, temperature),
        "heldout_nll_uncalibrated": nll(uncalibrated, targets),
        "heldout_accuracy": float((guesses == targets).mean()),
        "temperature": temperature,
    }
    return replace(raw, temperature=temperature), figures, rare


def run(run: Run, arguments: argparse.Namespace) -> None:
    settings, k = run.settings, run.settings.rollout.n
    recipe = recipes.of_settings(settings)
    mine = scope.stage(run, "calibrate", recipe)
    traces = mine.of(run.lake.read(TRACES).where(F.col("recipe_id") == recipe.id))
    rows = examples(
        traced(traces, recipe.id, k, settings.waves.max_attempts),
        run.lake.view("current_labels").where(F.col("task") == run.task),
        run.label_set,
        settings.calibrate.holdout,
    )
    spec = FeatureSpec(run.labels, settings.calibrate.hashed_words, run.label_set.independent)
    folder, counts = features(run, rows, spec)
    run.record.add({"videos_train": counts.get(False, 0), "videos_heldout": counts.get(True, 0)})
    if not counts:
        raise UsageError(
            f"calibrate: no labelled video of the split calibrate has its {k} rollouts under recipe {recipe.id}; "
            "run `deepintuit ingest --labels ...` and `deepintuit rollout --split calibrate` first"
        )
    calibrator, figures, rare = train(folder, spec, settings.calibrate.l2)
    manifest = calibrator.manifest() | {
        "task": run.task,
        "recipe_id": recipe.id,
        "recipe": recipe.json,
        "model_path": recipe.model_path,
        "adapter_path": recipe.adapter_path,
        "rollouts": k,
        "run_id": run.record.run_id,
        "created_at": datetime.now(UTC).isoformat(),
        "figures": figures | {name: run.record.counts[name] for name in ("videos_train", "videos_heldout")},
    }
    run.lake.registry.save(run.task, manifest, calibrator.weights())
    run.record.versions |= {"recipe_id": recipe.id, "calibrator_id": manifest["calibrator_id"]}
    note(run, metric_rows(run, figures))
    say(run, manifest["calibrator_id"], figures, rare)


def features(run: Run, rows: DataFrame, spec: FeatureSpec) -> tuple[str, dict[bool, int]]:
    """The examples as vectors in a folder of Parquet files, and how many of them are held out and how many not."""
    made, folder = run.path("features"), run.path("features-in-order")
    rows.mapInArrow(featurize(spec), from_arrow_schema(FEATURE_COLUMNS)).write.mode("overwrite").parquet(made)
    # Sums in floating point depend on their order: sorted rows give the same weights on every run.
    run.lake.spark.read.parquet(made).orderBy("video_id").write.parquet(folder)
    by_part = run.lake.spark.read.parquet(folder).groupBy("held_out").count().collect()
    return folder, {row["held_out"]: row["count"] for row in by_part}


def say(run: Run, calibrator_id: str, figures: dict[str, float], rare: StandIns) -> None:
    """What came of it, and whether it is worth promoting."""
    counts = run.record.counts
    for what, rows in (("with", rare.having), ("without", rare.lacking)):
        if rows:
            run.record.warn(
                f"fewer than {ENOUGH} videos to train on {what} the label {_listed(rows)}: there the calibrator mostly "
                "believes the traces; label more such videos of the split calibrate"
            )
    if not counts["videos_heldout"]:
        run.record.warn(
            f"calibrator {calibrator_id}: trained on {counts['videos_train']} videos; none is held out, so its "
            "temperature is 1 and nothing says how good it is: label more videos of the split calibrate, or raise "
            "calibrate.holdout"
        )
        return
    run.record.say(
        f"calibrator {calibrator_id}: trained on {counts['videos_train']} videos, "
        f"temperature {figures['temperature']:.2f} on {counts['videos_heldout']} held out, "
        f"held-out NLL {figures['heldout_nll_before']:.3f} -> {figures['heldout_nll']:.3f}; "
        "`deepintuit promote` makes it live"
    )
    if figures["heldout_nll"] >= figures["heldout_nll_uncalibrated"]:
        run.record.warn(
            f"there the traces' own probabilities are as good (NLL {figures['heldout_nll_uncalibrated']:.3f}): "
            "label more videos of the split calibrate before this calibrator is promoted"
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

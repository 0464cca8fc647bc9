"""calibrate: train the calibrator on the traces of the split `calibrate` and register it as a candidate.

    deepintuit calibrate --conf conf/local.yaml

Runs no rollouts: `deepintuit rollout --split calibrate` makes them. The candidate is live only after `promote`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

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
from models.calibration import probabilities
from models.calibration.features import FeatureSpec
from models.calibration.linear import LinearCalibrator, fit_linear
from schemas.traces import TRACES
from udfs.calibrator import FEATURE_COLUMNS, featurize

TAKES_BUDGET = False


def examples(traced: DataFrame, labels: DataFrame, order: tuple[str, ...], holdout: float) -> DataFrame:
    """Labelled videos with their traces: video_id, target (index of the label), held_out, traces.

    Which videos are held out depends on their id alone, so it stays when more arrive.
    """
    target = F.array_position(F.array(*[F.lit(label) for label in order]), F.col("label")) - 1
    share = F.pmod(F.xxhash64("video_id"), F.lit(10_000)) / 10_000
    return (
        traced.join(labels.select("video_id", "label"), "video_id")
        .select("video_id", target.alias("target"), (share < holdout).alias("held_out"), "traces")
        .where("target >= 0")  # a label that the task has given up teaches nothing
    )


def batches(folder: str, held_out: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stream one part of a featurized dataset, a Parquet file at a time: (features float64 [n, D], targets int64 [n])."""
    for rows in parquet.batches(folder, ["features", "target"], held_out=held_out):
        values = rows.column("features").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield values.reshape(rows.num_rows, -1), rows.column("target").to_numpy()


def train(folder: str, spec: FeatureSpec, l2: float) -> tuple[LinearCalibrator, dict[str, float]]:
    """Fit weights on one part and the temperature on the other. Returns the calibrator and its held-out figures.

    Raises UsageError if either part lacks rows.
    """
    if not any(True for _ in batches(folder, held_out=True)):
        raise UsageError("calibrate: no held-out videos; label more videos of that split or raise calibrate.holdout")
    try:
        raw = fit_linear(spec, lambda: batches(folder, held_out=False), l2)
    except ValueError as error:
        raise UsageError(f"calibrate: {error}; label more videos of the split calibrate") from None
    # One small row per held-out video: 2 L numbers, whatever the features weigh.
    held = [
        (raw.logits(features), spec.log_probs(features), targets)
        for features, targets in batches(folder, held_out=True)
    ]
    logits, uncalibrated, targets = (np.concatenate(part) for part in zip(*held, strict=True))
    temperature = probabilities.fit_temperature(logits, targets)
    fitted = LinearCalibrator(raw.spec, raw.mean, raw.scale, raw.weight, raw.bias, temperature)
    figures = {
        "heldout_nll_before": probabilities.mean_nll(logits, targets),
        "heldout_nll": probabilities.mean_nll(logits, targets, temperature),
        "heldout_nll_uncalibrated": probabilities.mean_nll(uncalibrated, targets),
        "heldout_accuracy": float((logits.argmax(1) == targets).mean()),
        "temperature": temperature,
    }
    return fitted, figures


def run(run: Run, arguments: argparse.Namespace) -> None:
    settings, k = run.settings, run.settings.rollout.n
    recipe = recipes.of_settings(settings)
    mine = scope.stage(run, "calibrate")
    traces = mine.of(run.lake.read(TRACES).where(F.col("recipe_id") == recipe.id))
    rows = examples(
        traced(traces, recipe.id, k, settings.waves.max_attempts),
        run.lake.view("current_labels").where(F.col("task") == run.task),
        run.labels,
        settings.calibrate.holdout,
    )
    spec = FeatureSpec(run.labels, settings.calibrate.hashed_words)
    folder, counts = features(run, rows, spec)
    run.record.add({"videos_train": counts.get(False, 0), "videos_heldout": counts.get(True, 0)})
    if not counts:
        raise UsageError(
            f"calibrate: no labelled video of the split calibrate has its {k} rollouts under recipe {recipe.id}; "
            "run `deepintuit ingest --labels ...` and `deepintuit rollout --split calibrate` first"
        )
    calibrator, figures = train(folder, spec, settings.calibrate.l2)
    manifest = calibrator.manifest() | {
        "task": run.task,
        "recipe_id": recipe.id,
        "recipe": recipe.json,
        "model_path": recipe.model_path,
        "rollouts": k,
        "run_id": run.record.run_id,
        "created_at": datetime.now(UTC).isoformat(),
        "figures": figures | {name: run.record.counts[name] for name in ("videos_train", "videos_heldout")},
    }
    run.lake.registry.save(run.task, manifest, calibrator.weights())
    run.record.versions |= {"recipe_id": recipe.id, "calibrator_id": manifest["calibrator_id"]}
    note(run, metric_rows(run, figures))
    say(run, manifest["calibrator_id"], figures)


def features(run: Run, rows: DataFrame, spec: FeatureSpec) -> tuple[str, dict[bool, int]]:
    """The examples as vectors in a folder of Parquet files, and how many of them are held out and how many not."""
    made, folder = run.path("features"), run.path("features-in-order")
    rows.mapInArrow(featurize(spec), from_arrow_schema(FEATURE_COLUMNS)).write.mode("overwrite").parquet(made)
    # Sums in floating point depend on their order: sorted rows give the same weights on every run.
    run.lake.spark.read.parquet(made).orderBy("video_id").write.parquet(folder)
    by_part = run.lake.spark.read.parquet(folder).groupBy("held_out").count().collect()
    return folder, {row["held_out"]: row["count"] for row in by_part}


def say(run: Run, calibrator_id: str, figures: dict[str, float]) -> None:
    """What came of it, and whether it is worth promoting."""
    counts = run.record.counts
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """calibrate takes its settings from the configuration alone."""


def main() -> int:
    return cli.main(["calibrate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

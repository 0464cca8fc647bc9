"""calibrate: train the calibrator on the traces of the split `calibrate` and register it as a candidate.

    deepintuit calibrate --conf conf/local.yaml

Runs no rollouts: `deepintuit rollout --split calibrate` makes them. The candidate is live only after `promote`.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from jobs import cli, recipe, scorer, staging
from jobs.run import Run, UsageError
from models import calibration, storage
from models.calibrator import LinearCalibrator, fit_linear
from models.features import FeatureSpec, stored_batches
from schemas.metrics import METRICS
from schemas.table import note_once
from schemas.traces import TRACES
from udfs.score import FEATURE_COLUMNS, featurize

TAKES_BUDGET = False


def examples(
    traced: DataFrame, labels: DataFrame, splits: DataFrame, task: str, order: tuple[str, ...], holdout: float
) -> DataFrame:
    """Labelled videos of the calibrate split with their traces: video_id, target (index of the label), held_out, traces.

    Which videos are held out depends on their id alone, so it stays when more arrive.
    """
    mine = splits.where((F.col("task") == task) & (F.col("split") == "calibrate")).select("video_id")
    truth = labels.where(F.col("task") == task).select("video_id", "label")
    target = F.array_position(F.array(*[F.lit(label) for label in order]), F.col("label")) - 1
    share = F.pmod(F.xxhash64("video_id"), F.lit(10_000)) / 10_000
    return (
        traced.join(mine, "video_id", "left_semi")
        .join(truth, "video_id")
        .select("video_id", target.alias("target"), (share < holdout).alias("held_out"), "traces")
        .where("target >= 0")  # a label that the task has given up teaches nothing
    )


def train(folder: str, spec: FeatureSpec, l2: float) -> tuple[LinearCalibrator, dict[str, float]]:
    """Fit weights on one part and the temperature on the other. Returns the calibrator and its held-out figures.

    Raises UsageError if either part lacks rows.
    """
    if not any(True for _ in stored_batches(folder, held_out=True)):
        raise UsageError("calibrate: no held-out videos; label more videos of that split or raise calibrate.holdout")
    try:
        raw = fit_linear(spec, lambda: stored_batches(folder, held_out=False), l2)
    except ValueError as error:
        raise UsageError(f"calibrate: {error}; label more videos of the split calibrate") from None
    # One small row per held-out video: 2 L numbers, whatever the features weigh.
    held = [
        (raw.logits(features), spec.log_probs(features), targets)
        for features, targets in stored_batches(folder, held_out=True)
    ]
    logits, uncalibrated, targets = (np.concatenate(part) for part in zip(*held, strict=True))
    temperature = calibration.fit_temperature(logits, targets)
    fitted = LinearCalibrator(raw.spec, raw.mean, raw.scale, raw.weight, raw.bias, temperature)
    figures = {
        "heldout_nll_before": calibration.mean_nll(logits, targets),
        "heldout_nll": calibration.mean_nll(logits, targets, temperature),
        "heldout_nll_uncalibrated": calibration.mean_nll(uncalibrated, targets),
        "heldout_accuracy": float((logits.argmax(1) == targets).mean()),
        "temperature": temperature,
    }
    return fitted, figures


def run(run: Run, arguments: argparse.Namespace) -> None:
    settings = run.settings
    what = recipe.of_settings(settings)
    k = settings.rollout.n
    traced = scorer.traced(run.read(TRACES), what.id, k, settings.waves.max_attempts)
    rows = examples(
        traced,
        run.view("current_labels"),
        run.view("current_splits"),
        run.task,
        run.labels,
        settings.calibrate.holdout,
    )
    spec = FeatureSpec(run.labels, settings.calibrate.hashed_words)
    folder = storage.join(staging.run_folder(run.root, run.run_id), "features")
    featurized = rows.mapInArrow(featurize(spec), from_arrow_schema(FEATURE_COLUMNS))
    featurized.write.mode("overwrite").parquet(folder)
    # Sums in floating point depend on their order: sorted rows give the same weights on every run.
    ordered = f"{folder}-ordered"
    run.spark.read.parquet(folder).orderBy("video_id").write.parquet(ordered)
    counts = dict(run.spark.read.parquet(ordered).groupBy("held_out").count().collect())
    run.add({"videos_train": counts.get(False, 0), "videos_heldout": counts.get(True, 0)})
    if not counts:
        raise UsageError(
            f"calibrate: no labelled video of the split calibrate has its {k} rollouts under recipe {what.id}; "
            "run `deepintuit ingest --labels ...` and `deepintuit rollout --split calibrate` first"
        )
    calibrator, figures = train(ordered, spec, settings.calibrate.l2)
    manifest = calibrator.manifest() | {
        "task": run.task,
        "recipe_id": what.id,
        "recipe": what.json,
        "model_path": what.model_path,
        "rollouts": k,
        "run_id": run.run_id,
        "created_at": datetime.now(UTC).isoformat(),
        "figures": figures | {name: run.counts[name] for name in ("videos_train", "videos_heldout")},
    }
    run.registry.save(run.task, manifest, calibrator.weights())
    run.versions |= {"recipe_id": what.id, "calibrator_id": manifest["calibrator_id"]}
    note_once(METRICS, run.root, metric_rows(run.run_id, figures), f"{run.run_id}/metrics")
    run.say(
        f"calibrator {manifest['calibrator_id']}: trained on {run.counts['videos_train']} videos, "
        f"temperature {figures['temperature']:.2f} on {run.counts['videos_heldout']} held out, "
        f"held-out NLL {figures['heldout_nll_before']:.3f} -> {figures['heldout_nll']:.3f}; "
        "`deepintuit promote` makes it live"
    )
    if figures["heldout_nll"] >= figures["heldout_nll_uncalibrated"]:
        run.say(
            f"WARNING: there the traces' own probabilities are as good (NLL {figures['heldout_nll_uncalibrated']:.3f}): "
            "label more videos of the split calibrate before this calibrator is promoted"
        )


def metric_rows(run_id: str, figures: dict[str, float], part: str = "all") -> list[dict[str, Any]]:
    """Figures as rows of the table metrics."""
    now = datetime.now(UTC)
    return [
        {"run_id": run_id, "name": name, "step": 0, "slice": part, "value": float(value), "at": now}
        for name, value in figures.items()
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """calibrate takes its settings from the configuration alone."""


def main() -> int:
    return cli.main(["calibrate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

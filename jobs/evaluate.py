"""evaluate: how good the live versions are on the split `test`, beside simpler ways to use the same model.

    deepintuit evaluate --conf conf/local.yaml

greedy      one rollout at temperature 0, probabilities from the label tokens where its answer begins
single      one sampled rollout, averaged over the K of each video
majority    the label most of the K voted for; probabilities are vote shares with one vote added per label
calibrated  the live scorer

A rollout without a usable answer counts as wrong, with uniform probabilities. Of independent labels each (video, label)
pair is judged on its own: whether the label applies (see jobs/steps/pairs.py). Rolls out what is missing of
`greedy` and of the K, and scores what has no score.
"""

from __future__ import annotations

import argparse
import sys

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table as Grid

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from jobs.steps import pairs, recipes, scope, scorers
from jobs.steps.deciding import most_probable_first
from jobs.steps.figures import FIGURES, METHODS, metric_rows, note
from jobs.steps.rollouts import roll_out, say_statuses
from jobs.steps.scope import Scope
from jobs.steps.scorers import Scorer
from jobs.steps.scoring import score_all
from models.calibration.probabilities import ECE_BINS, expected_calibration_error, f1_by_label
from schemas.scores import SCORES

TAKES_BUDGET = False


def trace_predictions(traces: DataFrame, labels: tuple[str, ...], method: str) -> DataFrame:
    """One prediction a trace: its label and the label probabilities where its answer begins."""
    usable = (F.col("status") == "ok") & F.col("label_logprobs").isNotNull()
    uniform = F.create_map(*[F.lit(x) for label in labels for x in (label, 1.0 / len(labels))])
    weights = F.expr("transform_values(label_logprobs, (k, v) -> exp(v - array_max(map_values(label_logprobs))))")
    total = F.expr("aggregate(map_values(weights), 0D, (a, w) -> a + w)")
    probs = F.expr("transform_values(weights, (k, w) -> w / total)")
    return (
        traces.withColumn("weights", weights)
        .withColumn("total", total)
        .select(
            F.lit(method).alias("method"),
            "video_id",
            F.when(F.col("status") == "ok", F.col("label")).alias("guess"),
            F.when(usable, probs).otherwise(uniform).alias("probs"),
        )
    )


def majority_predictions(single: DataFrame, labels: tuple[str, ...]) -> DataFrame:
    """One prediction a video from its single ones. Ties go to the label with the higher mean probability."""
    votes = [F.count(F.when(F.col("guess") == label, 1)).alias(f"votes_{label}") for label in labels]
    means = [F.avg(F.col("probs")[label]).alias(f"mean_{label}") for label in labels]
    ranked = F.array_sort(
        F.array(*[F.struct(-F.col(f"votes_{x}"), -F.col(f"mean_{x}"), F.lit(x).alias("label")) for x in labels])
    )
    voted = sum((F.col(f"votes_{label}") for label in labels), F.lit(0))
    shares = [x for label in labels for x in (F.lit(label), (F.col(f"votes_{label}") + 1) / (voted + len(labels)))]
    return (
        single.groupBy("video_id")
        .agg(*votes, *means)
        .select(
            F.lit("majority").alias("method"),
            "video_id",
            F.when(voted > 0, ranked[0]["label"]).alias("guess"),
            F.create_map(*shares).alias("probs"),
        )
    )


def score_predictions(scores: DataFrame) -> DataFrame:
    """One prediction a video from its calibrated probabilities; equal ones go by slug."""
    best = most_probable_first(F.col("probs"))[0]["key"]
    return scores.select(F.lit("calibrated").alias("method"), "video_id", best.alias("guess"), "probs")


def figures(
    predictions: DataFrame, truth: DataFrame, labels: tuple[str, ...], answers: int | None = None
) -> dict[str, dict[str, float]]:
    """method -> accuracy, macro_f1, ece, nll and f1/<label>; only sums per method, label and bin reach the driver.

    answers: how many there are to choose from, if these are not the labels.
    """
    uniform = F.lit(1.0 / (answers or len(labels)))
    given = F.coalesce(F.col("probs")[F.col("label")], uniform)
    methods = truth.sparkSession.createDataFrame([(method,) for method in METHODS], "method string")
    # A video that a method said nothing of counts as wrong: all methods share one denominator.
    said = truth.crossJoin(methods).join(predictions, ["video_id", "method"], "left")
    # And every video weighs the same, whether a method said one thing of it or K.
    share = 1.0 / F.count("*").over(Window.partitionBy("video_id", "method"))
    rows = said.select(
        "method",
        share.alias("n"),
        F.col("label").alias("truth"),
        "guess",
        F.col("guess").eqNullSafe(F.col("label")).cast("double").alias("right"),
        F.coalesce(F.col("probs")[F.col("guess")], uniform).alias("confidence"),
        (-F.log(F.greatest(given, F.lit(1e-12)))).alias("nll"),
    )
    rows = rows.withColumn("bin", F.least((F.col("confidence") * ECE_BINS).cast("int"), F.lit(ECE_BINS - 1)))
    sums = rows.groupBy("method", "truth", "guess", "bin").agg(
        F.sum("n").alias("n"), *[F.sum(F.col("n") * F.col(name)).alias(name) for name in ("right", "confidence", "nll")]
    )
    collected = sums.collect()
    return {method: _figures([row for row in collected if row["method"] == method], labels) for method in METHODS}


def _figures(rows: list, labels: tuple[str, ...]) -> dict[str, float]:
    count = sum(row["n"] for row in rows)
    confusion: dict[tuple[str, str | None], float] = {}
    bins: dict[int, tuple[float, float, float]] = {}
    for row in rows:
        key = (row["truth"], row["guess"])
        confusion[key] = confusion.get(key, 0) + row["n"]
        n, confidence, right = bins.get(row["bin"], (0, 0.0, 0.0))
        bins[row["bin"]] = (n + row["n"], confidence + row["confidence"], right + row["right"])
    f1 = f1_by_label(confusion, labels)
    return {
        "accuracy": sum(row["right"] for row in rows) / count,
        "macro_f1": sum(f1.values()) / len(f1),
        "ece": expected_calibration_error(bins),
        "nll": sum(row["nll"] for row in rows) / count,
    } | {f"f1/{label}": value for label, value in f1.items()}


def run(run: Run, arguments: argparse.Namespace) -> None:
    scorer = scorers.live(run)
    tested = scope.stage(run, "test", scorer.recipe)
    told = "labels" if run.label_set.independent else "label"
    labels = run.lake.view("current_labels").where((F.col("task") == run.task) & F.col(told).isNotNull())
    truth = (
        labels.select("video_id", told)
        .join(tested.videos.select("video_id"), "video_id", "left_semi")
        .localCheckpoint()
    )
    run.record.add({"videos_test": truth.count()})
    if not run.record.counts["videos_test"]:
        raise UsageError(
            "evaluate: no labelled video in the split test; `deepintuit ingest --labels FILE --split test`"
        )
    labelled = scope.fix(run, "labelled", tested.videos.join(truth, "video_id", "left_semi"))
    greedy = recipes.greedy(scorer.recipe)
    roll_out(run, greedy, 1, labelled)
    roll_out(run, scorer.recipe, scorer.rollouts, labelled)  # a video whose text has changed has none
    score_all(run, scorer, labelled)  # videos that an earlier scorer knows and this one does not
    found = compare(run, scorer, greedy.id, labelled, truth)
    note(run, [row for method in METHODS for row in metric_rows(run, found[method], method)])
    run.record.results = found
    say_statuses(run)
    if not run.record.quiet:
        show(found, run.record.counts["videos_test"])


def compare(run: Run, scorer: Scorer, greedy_id: str, labelled: Scope, truth: DataFrame) -> dict[str, dict[str, float]]:
    """The figures of all four methods on the videos in scope."""
    traces = labelled.of(run.lake.view("current_traces"))
    sampled = traces.where((F.col("recipe_id") == scorer.recipe.id) & (F.col("rollout_index") < scorer.rollouts))
    greedy = traces.where(F.col("recipe_id") == greedy_id)
    scores = labelled.of(run.lake.read(SCORES).where(F.col("scorer_id") == scorer.id))
    if not run.label_set.independent:
        return figures(all_predictions(greedy, sampled, scores, run.labels), truth, run.labels)
    of_pairs = all_predictions(
        pairs.of_traces(greedy, run.labels),
        pairs.of_traces(sampled, run.labels),
        pairs.of_scores(scores),
        pairs.ANSWERS,
    )
    of_truth = pairs.of_truth(truth, run.labels)
    return figures(pairs.by_label(of_pairs), pairs.by_label(of_truth), run.labels, len(pairs.ANSWERS))


def all_predictions(greedy: DataFrame, sampled: DataFrame, scores: DataFrame, labels: tuple[str, ...]) -> DataFrame:
    """The predictions of all four methods, as far as they have any."""
    single = trace_predictions(sampled, labels, "single")
    return (
        trace_predictions(greedy, labels, "greedy")
        .unionByName(single)
        .unionByName(majority_predictions(single, labels))
        .unionByName(score_predictions(scores))
    )


def show(found: dict[str, dict[str, float]], videos: int) -> None:
    """A table for people, on standard error: standard output is for programs."""
    grid = Grid(title=f"{videos} test videos", caption="ece, nll: smaller is better", box=None)
    for name in ("method", *FIGURES):
        grid.add_column(name, justify="left" if name == "method" else "right")
    for method in METHODS:
        grid.add_row(method, *[f"{found[method][name]:.3f}" for name in FIGURES])
    Console(stderr=True).print(grid)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """evaluate always measures the live versions on the test split."""


def main() -> int:
    return cli.main(["evaluate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

"""What a calibrator is fitted on and judged by."""

from __future__ import annotations

from collections import defaultdict

from jobs.steps.examples import labelled
from schemas.label_set import LabelSet

SLUGS = ("cat", "dog")


def test_videos_of_one_source_are_in_one_fold_and_a_label_that_was_given_up_teaches_nothing(spark):
    ids = [f"v{number}" for number in range(60)]
    traced = spark.createDataFrame([(name, [1]) for name in ids], "video_id string, traces array<int>")
    said = {name: ["cat"] if number % 2 else ["dog"] for number, name in enumerate(ids)} | {"v0": ["cow"], "v1": None}
    labels = spark.createDataFrame(list(said.items()), "video_id string, labels array<string>")
    shared = spark.createDataFrame(
        [(name, f"s{number // 4}") for number, name in enumerate(ids[:40])], "video_id string, cluster string"
    )
    rows = {row["video_id"]: row for row in labelled(traced, labels, shared, LabelSet(SLUGS, "exclusive"), 5).collect()}
    assert rows.keys() == set(ids[2:])
    assert rows["v2"]["targets"] == [0, 1] and rows["v3"]["targets"] == [1, 0]
    folds, clusters = defaultdict(set), defaultdict(set)
    for number, name in enumerate(ids[2:], 2):
        source = number // 4 if number < 40 else name
        folds[source].add(rows[name]["fold"])
        clusters[source].add(rows[name]["cluster"])
    assert len(folds) == 10 + 20 and all(len(found) == 1 for found in (*folds.values(), *clusters.values()))
    assert {fold for found in folds.values() for fold in found} == set(range(5))
    assert len({cluster for found in clusters.values() for cluster in found}) == 30

"""Evaluation: the figures against sums done by hand."""

from __future__ import annotations

import math

import pytest

from jobs.evaluate import FIGURES, METHODS, figures, majority_predictions, score_predictions, trace_predictions

LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def frame(spark):
    """frame(rows, schema) -> DataFrame."""
    return spark.createDataFrame


def test_figures_by_hand(frame):
    """Four videos: right at 0.9, right at 0.8, wrong at 0.8, and one without a guess under uniform probabilities."""
    rows = [
        ("single", "v1", "a", {"a": 0.9, "b": 0.05, "c": 0.05}),
        ("single", "v2", "b", {"a": 0.1, "b": 0.8, "c": 0.1}),
        ("single", "v3", "b", {"a": 0.15, "b": 0.8, "c": 0.05}),
        ("single", "v4", None, dict.fromkeys(LABELS, 1 / 3)),
        ("single", "unlabelled", "a", {"a": 1.0, "b": 0.0, "c": 0.0}),
        ("calibrated", "v1", "b", {"a": 0.0, "b": 1.0, "c": 0.0}),
    ]
    truth = frame([("v1", "a"), ("v2", "b"), ("v3", "a"), ("v4", "b")], "video_id string, label string")
    found = figures(
        frame(rows, "method string, video_id string, guess string, probs map<string,double>"), truth, LABELS
    )
    single = found["single"]
    assert single["accuracy"] == 0.5
    # a: 1 hit of 2 true and 1 said; b: 1 hit of 2 true and 2 said; c: never true nor said
    assert (single["f1/a"], single["f1/b"], single["f1/c"]) == (pytest.approx(2 / 3), 0.5, 0.0)
    assert single["macro_f1"] == pytest.approx((2 / 3 + 0.5) / 3)
    assert single["nll"] == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.15) + math.log(1 / 3)) / 4)
    # bins: {0.9}: 0.1 off; {0.8, 0.8} with one right: 0.6 off in sum; {1/3} and wrong: 1/3 off
    assert single["ece"] == pytest.approx((0.1 + 0.6 + 1 / 3) / 4)
    # One of four certain and wrong, in the last bin with a finite loss; three without a score count as wrong and uniform.
    assert found["calibrated"]["accuracy"] == 0
    assert found["calibrated"]["ece"] == pytest.approx((1 + 3 * 1 / 3) / 4)
    assert found["calibrated"]["nll"] == pytest.approx((-math.log(1e-12) + 3 * math.log(3)) / 4)
    assert set(found) == set(METHODS) and set(found["greedy"]) > set(FIGURES)


@pytest.fixture(scope="module")
def single(frame):
    """Traces of four videos as single predictions."""
    near, far = math.log(0.62), math.log(0.19)  # away from the edges of the bins
    rows = [
        ("tie", "ok", "a", {"a": near, "b": far, "c": far}),
        ("tie", "ok", "b", {"a": far, "b": math.log(0.71), "c": math.log(0.1)}),
        ("most", "ok", "c", {"a": far, "b": far, "c": near}),
        ("most", "ok", "c", {"a": far, "b": far, "c": near}),
        ("most", "ok", "a", {"a": 0.0, "b": -50.0, "c": -50.0}),
        ("most", "too_long", "b", {"a": -50.0, "b": 0.0, "c": -50.0}),
        ("failed", "parse_error", None, None),
        ("failed", "decode_error", None, None),
        ("bare", "ok", "b", None),
    ]
    traces = frame(rows, "video_id string, status string, label string, label_logprobs map<string,double>")
    return trace_predictions(traces, LABELS, "single").localCheckpoint()


def test_a_trace_speaks_by_its_label_and_the_probabilities_where_its_answer_begins(single):
    (row, _) = single.where("video_id = 'tie'").orderBy("guess").collect()
    assert row["guess"] == "a" and row["method"] == "single"
    assert row["probs"] == {"a": pytest.approx(0.62), "b": pytest.approx(0.19), "c": pytest.approx(0.19)}


def test_failed_rollouts_have_no_guess_and_uniform_probabilities(single):
    rows = single.where("guess IS NULL").collect()
    assert sorted(row["video_id"] for row in rows) == ["failed", "failed", "most"]
    assert all(row["probs"] == pytest.approx(dict.fromkeys(LABELS, 1 / 3)) for row in rows)


def test_failed_rollouts_count_as_wrong(single, frame):
    truth = frame([("failed", "a")], "video_id string, label string")
    found = figures(single, truth, LABELS)["single"]
    assert (found["accuracy"], found["ece"], found["nll"]) == (0, pytest.approx(1 / 3), pytest.approx(math.log(3)))


def test_every_video_weighs_the_same_however_much_was_said_of_it(single, frame):
    """One of four right, one of two, and nothing said of the third; rows that weigh the same would give 2 of 7."""
    truth = frame([("most", "a"), ("tie", "a"), ("unseen", "b")], "video_id string, label string")
    found = figures(single, truth, LABELS)["single"]
    hits = 1 / 4 + 1 / 2
    assert found["accuracy"] == pytest.approx(hits / 3)
    assert found["f1/a"] == pytest.approx(2 * hits / (2 + hits))
    most = -(2 * math.log(0.19) + math.log(1) + math.log(1 / 3)) / 4
    tie = -(math.log(0.62) + math.log(0.19)) / 2
    assert found["nll"] == pytest.approx((most + tie + math.log(3)) / 3)
    # At 0.62 half of one video is right, at 0.71 none of half a video, at 1/3 none of one and a quarter, at 1 all.
    assert found["ece"] == pytest.approx((0.12 + 0.5 * 0.71 + 1.25 / 3) / 3)


def test_the_majority_decides_and_ties_go_to_the_higher_mean_probability(single):
    found = {row["video_id"]: row for row in majority_predictions(single, LABELS).collect()}
    assert {name: row["guess"] for name, row in found.items()} == {"tie": "b", "most": "c", "failed": None, "bare": "b"}
    # One vote added per label: (1, 0, 2) of three votes become 2/6, 1/6, 3/6.
    assert found["most"]["probs"] == pytest.approx({"a": 2 / 6, "b": 1 / 6, "c": 3 / 6})
    assert found["failed"]["probs"] == pytest.approx(dict.fromkeys(LABELS, 1 / 3))


def test_calibrated_probabilities_speak_for_their_largest_and_ties_go_by_slug(frame):
    rows = [("v1", {"c": 0.4, "b": 0.4, "a": 0.2}), ("v2", {"a": 0.1, "b": 0.2, "c": 0.7})]
    found = score_predictions(frame(rows, "video_id string, probs map<string,double>")).collect()
    assert {row["video_id"]: row["guess"] for row in found} == {"v1": "b", "v2": "c"}

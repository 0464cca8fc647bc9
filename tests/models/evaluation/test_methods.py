"""From traces and scores to predictions: what each method says of a video, by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from models.evaluation.figures import NOTHING, figures
from models.evaluation.methods import Case, Methods, Score

LABELS = ("a", "b", "c")
ONE, FREE = Methods(LABELS, False), Methods(LABELS, True)


def trace(labels, probs, status="ok"):
    logprobs = {label: log(p) for label, p in zip(LABELS, probs, strict=True)} if probs else None
    return {
        "rollout_index": 0,
        "status": status,
        "labels": list(labels) if status == "ok" else None,
        "label_logprobs": logprobs,
        "observation": None,
        "think": None,
        "logprob_sum": -1.0,
        "tokens": 4,
    }


TIE = [trace("a", (0.62, 0.19, 0.19)), trace("b", (0.19, 0.71, 0.1))]
MOST = [
    trace("c", (0.2, 0.2, 0.6)),
    trace("c", (0.2, 0.2, 0.6)),
    trace("a", (0.9, 0.05, 0.05)),
    trace("b", None, "too_long"),
]
FAILED = [trace((), None, "parse_error"), trace((), None, "decode_error")]
BARE = [trace("b", None)]
TRACES = [TIE, MOST, FAILED, BARE, []]
CASES = [
    Case(name, (truth,), name)
    for name, truth in (("tie", "a"), ("most", "a"), ("failed", "b"), ("bare", "b"), ("none", "c"))
]


def once(found):
    return {name: float(value[0]) for name, value in figures(found, found.weight[None]).items()}


def test_a_trace_speaks_by_its_label_and_the_probabilities_where_its_answer_begins():
    found = ONE.predictions(ONE.of_traces(TRACES), CASES)
    assert found.case.tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 3, 4]
    assert found.guess.tolist() == [0, 1, 2, 2, 0, NOTHING, NOTHING, NOTHING, 1, NOTHING]
    assert found.probs[0] == pytest.approx([0.62, 0.19, 0.19])
    assert found.probs[5] == pytest.approx([1 / 3] * 3) == found.probs[8]
    assert found.weight == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 1, 1])


def test_every_video_weighs_the_same_however_much_was_said_of_it():
    """One of two right, one of four, and nothing of the rest but the bare one; equal rows would give 3 of 10."""
    ours = once(ONE.predictions(ONE.of_traces(TRACES), CASES))
    assert ours["accuracy"] == pytest.approx((1 / 2 + 1 / 4 + 0 + 1 + 0) / 5)


@pytest.mark.parametrize("methods", [ONE, FREE], ids=["exclusive", "independent"])
def test_videos_of_one_source_are_one_cluster(methods):
    shared = [Case(case.video_id, case.truth, f"hand {number // 2}") for number, case in enumerate(CASES)]
    found = methods.predictions(methods.of_traces(TRACES), shared)
    assert found.cluster.tolist() == (found.case // 2).tolist()


def test_the_majority_decides_by_shares_and_ties_go_by_slug():
    found = ONE.predictions(ONE.of_vote_shares(TRACES), CASES)
    assert found.guess.tolist() == [0, 2, NOTHING, 1, NOTHING]
    backwards = Methods(("c", "b", "a"), False)  # whatever the order of the task
    assert backwards.of_vote_shares([TIE]).guess.tolist() == [2]
    assert found.probs[1] == pytest.approx([1 / 3, 0, 2 / 3], abs=1e-9)
    assert found.probs[2] == pytest.approx([1 / 3] * 3)
    tempered = ONE.predictions(ONE.of_votes(TRACES), CASES, temperature=1.0)
    assert tempered.probs[1] == pytest.approx([1.5 / 4.5, 0.5 / 4.5, 2.5 / 4.5])
    assert tempered.guess.tolist() == found.guess.tolist()


def test_scores_speak_for_their_largest_and_ties_go_by_slug():
    given = [Score({"c": 0.4, "b": 0.4, "a": 0.2}), Score({"a": 0.1, "b": 0.2, "c": 0.7}), None, None, None]
    found = ONE.predictions(ONE.of_scores(given), CASES)
    assert found.guess.tolist() == [1, 2, NOTHING, NOTHING, NOTHING]
    assert found.probs[0] == pytest.approx([0.2, 0.4, 0.4])


def test_a_score_on_traces_without_an_answer_is_no_answer_but_has_its_probabilities():
    given = [Score({"a": 0.5, "b": 0.3, "c": 0.2}, usable=False), *[None] * 4]
    found = ONE.predictions(ONE.of_scores(given), CASES)
    assert found.guess[0] == NOTHING and found.probs[0] == pytest.approx([0.5, 0.3, 0.2])
    assert FREE.of_scores(given).guess[0].tolist() == [NOTHING] * 3


def test_the_same_votes_in_another_order_are_one_confidence():
    """Given probabilities that differ by rounding, then they are tied: in bins, in coverage, against being right."""
    votes = [[trace(named, None) for named in order] for order in ("aaab", "bbba", "ccca", "aaac", "bbbc", "cccb")]
    cases = [Case(str(number), ("a",), str(number)) for number in range(len(votes))]
    by_rounding = 0
    for temperature in np.linspace(1.0, 2.0, 20):
        found = ONE.predictions(ONE.of_votes(votes), cases, temperature)
        assert len(set(found.confidence.tolist())) == 1
        by_rounding += len(set(found.probs.max(1).tolist())) > 1
    assert by_rounding  # or there was nothing to see


def test_answers_without_probabilities_are_right_or_wrong():
    said = ONE.of_answers([[("a",), None], [("c",)], [("b",)], [("a",)], []])
    assert once(ONE.predictions(said, CASES))["accuracy"] == pytest.approx((1 / 2 + 0 + 1 + 0 + 0) / 5)


def test_a_temperature_is_fitted_on_other_cases():
    rng = np.random.default_rng(0)
    cases = [Case(f"v{n}", (LABELS[rng.integers(3)],), f"v{n}") for n in range(400)]
    sure = []
    for case in cases:  # says 98 %, is right in 70 of 100
        said = case.truth[0] if rng.random() < 0.7 else LABELS[(LABELS.index(case.truth[0]) + 1) % 3]
        sure.append([trace(said, [0.98 if label == said else 0.01 for label in LABELS])])
    statements = ONE.of_traces(sure)
    temperature = ONE.temperature(statements, cases)
    before, after = (once(ONE.predictions(statements, cases, t)) for t in (1.0, temperature))
    assert temperature > 1.5 and after["nll"] < before["nll"] and after["ece"] < 0.05 < 0.2 < before["ece"]
    assert after["accuracy"] == before["accuracy"]


def test_of_independent_labels_every_pair_is_a_question():
    cases = [Case("v", ("a", "b"), "v"), Case("w", (), "w")]
    traces = [[trace(("a",), (0.9, 0.4, 0.2)), trace(("a", "b"), (0.8, 0.7, 0.1))], [trace((), None, "parse_error")]]
    found = FREE.predictions(FREE.of_traces(traces), cases)
    assert len(found.truth) == 9 and found.probs.shape == (9, 2)
    assert found.truth.tolist() == [1, 1, 0, 1, 1, 0, 0, 0, 0]
    assert found.guess.tolist() == [1, 0, 0, 1, 1, 0, NOTHING, NOTHING, NOTHING]
    assert found.probs[0] == pytest.approx([0.1, 0.9]) and found.probs[6] == pytest.approx([0.5, 0.5])
    ours = once(found)
    assert ours["accuracy"] == pytest.approx((5 / 2 + 0) / 6)
    assert ours["f1/a"] == 1 and ours["f1/b"] == pytest.approx(2 * 0.5 / (1 + 0.5)) and np.isnan(ours["f1/c"])
    assert ours["macro_f1"] == pytest.approx((1 + ours["f1/b"]) / 2)  # c is neither true nor said


def test_the_majority_of_independent_labels_is_by_label():
    traces = [[trace(("a", "b"), (0.9, 0.6, 0.2)), trace(("a",), (0.8, 0.5, 0.1))], []]
    found = FREE.of_vote_shares(traces)
    assert found.guess.tolist() == [[1, 1, 0], [NOTHING] * 3]  # of b one of two: as probable as not
    scored = FREE.of_scores([Score({"a": 0.5, "b": 0.49, "c": 0.9}), None])
    assert scored.guess.tolist() == [[1, 0, 1], [NOTHING] * 3]

"""Features: one vector of known length and meaning, whatever the traces look like."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.calibration.features import TRACE_FIELDS, FeatureSpec, agreement, label_probs, vector

LABELS = ("falling", "mixed", "rising")
SPEC = FeatureSpec(LABELS, 16)


def trace(index: int = 0, label: str | None = "rising", status: str = "ok", **changes) -> dict:
    """A trace that gives its label probability 0.8 and the others 0.1."""
    probs = {name: 0.8 if name == label else 0.1 for name in LABELS}
    whole = {
        "rollout_index": index,
        "status": status,
        "labels": [label] if status == "ok" else None,
        "observation": "1 2 3 4",
        "think": f"thought {index}",
        "label_logprobs": {name: math.log(p) for name, p in probs.items()} if status == "ok" else None,
        "logprob_sum": -4.0,
        "tokens": 8,
    } | changes
    assert tuple(whole) == TRACE_FIELDS
    return whole


def features(*traces: dict, spec: FeatureSpec = SPEC) -> dict[str, float]:
    return dict(zip(spec.names, vector(traces, spec), strict=True))


@pytest.mark.parametrize("words", [0, 1, 16])
@pytest.mark.parametrize("labels", [LABELS, ("no", "yes")])
def test_a_vector_has_one_number_for_every_name(labels, words):
    spec = FeatureSpec(labels, words)
    found = vector([trace(label=None, status="parse_error")], spec)
    assert found.shape == (len(spec.names),) and found.dtype == np.float64
    assert len(set(spec.names)) == len(spec.names)


def test_votes_probabilities_and_agreement_by_hand():
    found = features(trace(0), trace(1), trace(2, "mixed"), trace(3, None, "too_long"))
    assert [found[f"votes/{label}"] for label in LABELS] == [0, 0.25, 0.5]
    assert [found[f"prob/{label}"] for label in LABELS] == pytest.approx(
        [(0.1 * 3 + 1 / 3) / 4, (0.1 * 2 + 0.8 + 1 / 3) / 4, (0.8 * 2 + 0.1 + 1 / 3) / 4]
    )
    assert found["logprob/rising"] == pytest.approx(math.log(found["prob/rising"]))
    assert found["agreement"] == 0.5
    assert (found["status/ok"], found["status/too_long"], found["status/parse_error"]) == (0.75, 0.25, 0)
    assert (found["token_logprob/mean"], found["token_logprob/spread"], found["tokens/mean"]) == (-0.5, 0, 8)


def test_traces_that_all_failed_give_a_finite_vector_that_prefers_no_label():
    failed = [
        trace(i, None, status, observation=None, think=None, logprob_sum=None, tokens=tokens)
        for i, (status, tokens) in enumerate([("decode_error", None), ("generation_error", 0), ("parse_error", 5)])
    ]
    values = features(*failed)
    assert all(math.isfinite(value) for value in values.values())
    assert [values[f"prob/{label}"] for label in LABELS] == pytest.approx([1 / 3] * 3)
    assert values["agreement"] == 0 == values["votes/rising"] and agreement(failed) == 0
    assert all(values[f"word/{bucket}"] == 0 for bucket in range(16))


@pytest.mark.parametrize("found", [None, {}, {"rising": -0.1}], ids=["none", "empty", "one of three"])
def test_an_answer_without_all_label_probabilities_counts_as_uniform(found):
    missing = trace(label_logprobs=found)
    assert label_probs(missing, SPEC) == pytest.approx([1 / 3] * 3)
    assert features(missing)["votes/rising"] == 1


@pytest.mark.parametrize("status", ["parse_error", "too_long", "generation_error"])
def test_a_failed_trace_says_nothing_whatever_probabilities_it_carries(status):
    certain = {"rising": -0.01, "mixed": -9.0, "falling": -9.0}
    failed = trace(status=status, label_logprobs=certain)
    assert label_probs(failed, SPEC) == pytest.approx([1 / 3] * 3)
    assert features(failed)["prob/rising"] == pytest.approx(1 / 3)


def test_label_probabilities_may_come_as_pairs_and_need_not_be_normalised():
    pairs = [("rising", math.log(0.06)), ("mixed", math.log(0.03)), ("falling", math.log(0.01)), ("other", 0.0)]
    assert label_probs(trace(label_logprobs=pairs), SPEC) == pytest.approx([0.1, 0.3, 0.6])
    assert label_probs(trace(label_logprobs=dict.fromkeys(LABELS, -2000.0)), SPEC) == pytest.approx([1 / 3] * 3)


def test_the_order_of_traces_does_not_matter():
    traces = [trace(0), trace(1, "mixed", tokens=30), trace(2, None, "too_long"), trace(3, "falling", logprob_sum=-9.0)]
    assert vector(traces, SPEC) == pytest.approx(vector(traces[::-1], SPEC), abs=1e-12)


def test_the_order_of_labels_moves_their_features_along():
    turned = FeatureSpec(LABELS[::-1], 16)
    traces = [trace(0), trace(1, "mixed")]
    assert features(*traces) == pytest.approx(features(*traces, spec=turned))


def test_long_traces_weigh_no_more_than_short_ones():
    short = [value for name, value in features(trace(think="up")).items() if name.startswith("word/")]
    long = [
        value for name, value in features(trace(think="up", observation="1 2 3 4 " * 50)).items() if "word/" in name
    ]
    assert np.linalg.norm(short) == pytest.approx(1) == np.linalg.norm(long)


def test_words_are_the_same_in_capitals_and_differ_by_their_letters():
    words = [features(trace(think=text, observation=None)) for text in ("Rising", "rising", "falling")]
    assert words[0] == words[1] != words[2]


def test_no_traces_are_refused():
    with pytest.raises(ValueError, match="at least one trace"):
        vector([], SPEC)


FREE = FeatureSpec(LABELS, 0, independent=True)


def free(*named: str, status: str = "ok", **probs: float) -> dict:
    """A trace of independent labels that names some; probs: that a label applies."""
    logprobs = {label: math.log(probs[label]) for label in LABELS} if probs else None
    return trace(status=status, labels=list(named) if status == "ok" else None, label_logprobs=logprobs)


def test_independent_labels_are_counted_each_on_its_own():
    found = features(
        free("mixed", "rising", falling=0.1, mixed=0.9, rising=0.8),
        free("rising", falling=0.3, mixed=0.2, rising=0.7),
        free(falling=0.1, mixed=0.1, rising=0.1),
        free(status="parse_error"),
        spec=FREE,
    )
    assert [found[f"votes/{label}"] for label in LABELS] == [0, 0.25, 0.5]
    assert [found[f"prob/{label}"] for label in LABELS] == pytest.approx(
        [(0.1 + 0.3 + 0.1 + 0.5) / 4, (0.9 + 0.2 + 0.1 + 0.5) / 4, (0.8 + 0.7 + 0.1 + 0.5) / 4]
    )
    p = found["prob/rising"]
    assert found["logit/rising"] == pytest.approx(math.log(p / (1 - p)))
    assert FREE.evidence(vector([free("rising", falling=0.1, mixed=0.5, rising=0.8)], FREE)[None])[0] == pytest.approx(
        [math.log(0.1 / 0.9), 0.0, math.log(0.8 / 0.2)]
    )


def test_traces_of_independent_labels_agree_where_they_name_the_same():
    same, other, nothing = (free(*named) for named in (("mixed", "rising"), ("mixed",), ()))
    assert agreement([same, other, same, free(status="too_long")]) == 0.5 == agreement([same, other])
    assert agreement([nothing, nothing, other]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("p", [0.0, 1e-300, 1.0])
def test_a_trace_that_is_certain_of_an_independent_label_gives_finite_features(p):
    logprob = math.log(p) if p else -math.inf
    found = vector([trace(labels=[], label_logprobs=dict.fromkeys(LABELS, logprob))], FREE)
    assert np.isfinite(found).all()
    certain = label_probs(trace(label_logprobs=dict.fromkeys(LABELS, 1e-9)), FREE)  # rounding is no probability above 1
    assert 1 - 1e-12 < certain.max() <= 1


def test_by_a_rule_observation_and_thinking_vote_beside_the_answer():
    """Given traces that answer mixed whatever they saw, then what they saw and thought is counted all the same."""
    spec = FeatureSpec(LABELS, 0, rule="models.handwriting.rule:label_argued")
    said = [
        trace(0, "mixed", think="1<2 2<3 3<4 so rising"),
        trace(1, "mixed", think=None),
        trace(2, None, "too_long", observation="4 3 2 1", think="4>3"),
        trace(3, None, "decode_error", observation=None, think=None),
    ]
    found = features(*said, spec=spec)
    assert [found[f"observation/{label}"] for label in LABELS] == [0.25, 0, 0.5]
    assert [found[f"think/{label}"] for label in LABELS] == [0, 0, 0.25]
    assert found["votes/mixed"] == 0.5 and len(spec.names) == len(FeatureSpec(LABELS, 0).names) + 6

"""What traces are worth in themselves, by hand."""

from __future__ import annotations

from math import log

import pytest

from models.handwriting.rule import label_argued
from models.language.rule import load_rule
from models.language.trace_quality import label_entropy, of_video, repetition


def trace(observation, think, label, **changes):
    text = f"<observation>{observation}</observation><think>{think}</think><answer>{label}</answer>"
    return {
        "status": "ok" if label else "parse_error",
        "labels": [label] if label else None,
        "observation": observation,
        "think": think,
        "text": text,
        "label_logprobs": {"rising": log(0.5), "falling": log(0.5)},
        "logprob_sum": -6.0,
        "tokens": 12,
    } | changes


TRACES = [
    trace("1 2 3 4", "1<2 2<3 3<4 so rising", "rising"),
    trace("1 2 3 9", "1<2 2<3 3>9 so mixed", "rising"),
    trace("1 2 4", "so falling", "falling", logprob_sum=None),
    trace("1 2 3 4", "hm", None, label_logprobs=None, tokens=0),
]


def test_a_trace_is_held_against_itself_and_its_siblings():
    found = of_video(TRACES, label_argued, " 1 2  3 4")
    assert [one.observation_label for one in found] == ["rising", "rising", None, "rising"]
    assert [one.think_label for one in found] == ["rising", "mixed", "falling", None]
    assert [one.follows_observation for one in found] == [True, True, None, None]
    assert [one.follows_think for one in found] == [True, False, True, None]
    assert [one.observation_right for one in found] == [True, False, False, True]
    assert [one.token_nll for one in found] == [0.5, 0.5, None, None]
    assert [one.sibling_disagreement for one in found] == [0.5, 0.5, 1.0, None]
    assert found[0].label_entropy == pytest.approx(log(2)) and found[3].label_entropy is None


def test_what_nobody_knows_is_unknown():
    (found,) = of_video(TRACES[:1], None, None)
    assert (
        found.observation_label,
        found.think_label,
        found.follows_think,
        found.observation_right,
        found.sibling_disagreement,
    ) == (None,) * 5
    (asked,) = of_video(TRACES[:1], None, None, ["falling"])
    assert (asked.think_label, asked.follows_think) == ("falling", False)


def test_repetition_is_the_share_of_threes_that_came_before():
    assert repetition("a b c d") == repetition("a b") == repetition("") == 0
    assert repetition("a b c a b c a b c") == pytest.approx(4 / 7)
    assert repetition("no " * 50) == pytest.approx(47 / 48)


def test_the_entropy_is_of_what_labels_share_and_certainty_has_none():
    assert label_entropy({"a": log(0.2), "b": log(0.2)}) == pytest.approx(log(2))
    assert label_entropy([("a", 0.0), ("b", -1e9)]) == 0
    assert label_entropy({}) is None and label_entropy(None) is None


def test_a_rule_is_named_and_found_or_said_to_be_missing():
    assert load_rule("models.handwriting.rule:label_argued") is label_argued
    for name in ("models.handwriting.rule:absent", "no.such.module:told"):
        with pytest.raises(ValueError, match="expected module:function that can be imported"):
            load_rule(name)


@pytest.mark.parametrize(
    ("segment", "label"),
    [
        ("3 5 2 9", "mixed"),
        ("9 7 2 0", "falling"),
        (" 1 2 3 4 ", "rising"),
        ("1 2 3", None),
        ("3<5 5>2 so rising", "mixed"),  # the comparisons decide, whatever is said of them
        ("3<5 5=5", "mixed"),
        ("9>7 7>2 2>0 hence falling", "falling"),
        ("1<2 2<3", None),
        ("1<2 so rising or mixed", "mixed"),
        ("nothing", None),
        ("", None),
    ],
)
def test_the_benchmarks_rule(segment, label):
    assert label_argued(segment) == label

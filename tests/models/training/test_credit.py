"""Rewards teach the tokens that they are about."""

from __future__ import annotations

import pytest

from models.handwriting import tiny
from models.training.credit import by_token, gains
from models.training.objectives import group_advantages
from models.training.rewards import rewards

REWARDS = rewards({"accuracy": 1.0, "format": 0.5, "evidence": 2.0}, 1, 99)
# One saw right and answered wrong, one the other way round, one did both, one neither.
GROUP = [
    {"accuracy": 0.0, "format": 1.0, "evidence": 1.0},
    {"accuracy": 1.0, "format": 1.0, "evidence": 0.0},
    {"accuracy": 1.0, "format": 1.0, "evidence": 1.0},
    {"accuracy": 0.0, "format": 1.0, "evidence": 0.0},
]


def test_credit_by_trace_is_one_number_for_all_tokens():
    found = gains("trace", REWARDS, GROUP, group_advantages)
    totals = group_advantages([2.5, 1.5, 3.5, 0.5])
    assert found == [(total, total) for total in totals]


def test_credit_by_segment_holds_seeing_against_seeing_and_reasoning_against_reasoning():
    found = gains("segment", REWARDS, GROUP, group_advantages)
    assert [seen for seen, _ in found] == group_advantages([2.5, 0.5, 2.5, 0.5])
    assert [argued for _, argued in found] == group_advantages([0.5, 1.5, 1.5, 0.5])
    assert found[0][0] > 0 > found[0][1]  # what it saw is to come more often, what it made of it less


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (
            "<observation>3 5 2 9</observation><think>3<5 so mixed</think><answer>mixed</answer>",
            "<observation>3 5 2 9</observation>",
        ),
        ("<observation>3 5 2 9<think>3<5 so mixed</think><answer>mixed</answer>", ""),  # never closed
        ("<think>so mixed</think> <answer>mixed</answer>", ""),
    ],
)
def test_the_border_between_them_is_where_the_observation_closes(text, seen):
    tokenizer = tiny.make_tokenizer()
    ids = tokenizer(text + "<|im_end|>")["input_ids"]
    found = by_token(tokenizer, ids, text, (7.0, -1.0))
    first = len(tokenizer(seen)["input_ids"])
    assert found == [7.0] * first + [-1.0] * (len(ids) - first)


def test_equal_gains_need_no_border():
    assert by_token(None, [1, 2, 3], "whatever", (0.5, 0.5)) == [0.5] * 3

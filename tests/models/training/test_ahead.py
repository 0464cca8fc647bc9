"""Batches made ahead are the batches of their steps, and what they raise is raised in time."""

from __future__ import annotations

import threading

import pytest

from models.training.ahead import Ahead


def test_batches_come_in_order_whatever_is_made_ahead():
    made = []
    with Ahead(lambda step: made.append(step) or step * 10, end=4) as ahead:
        assert [ahead(step) for step in range(4)] == [0, 10, 20, 30]
        assert ahead(1) == 10  # a step that comes again is made again
    assert sorted(made[:4]) == [0, 1, 2, 3]


def test_the_next_batch_is_made_while_this_one_is_used_and_none_beyond_the_end():
    second, made = threading.Event(), []

    def batches(step):
        made.append(step)
        if step == 1:
            second.set()
        return step

    with Ahead(batches, end=2) as ahead:
        assert ahead(0) == 0
        assert second.wait(10)  # though nobody asked for it yet
        assert ahead(1) == 1
    assert made == [0, 1]


def test_what_a_batch_raises_is_raised_when_it_is_due():
    def batches(step):
        if step == 1:
            raise ValueError("no such batch")
        return step

    with Ahead(batches, end=3) as ahead:
        assert ahead(0) == 0
        with pytest.raises(ValueError, match="no such batch"):
            ahead(1)

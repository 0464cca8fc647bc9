"""The handwriting itself: 1,797 real digits (scikit-learn's `load_digits`, 8 x 8 pixels), cut into hands and subsets.

The data set goes from writer to writer, form by form. A hand is a run of neighbours in it that has every digit, so mostly
of one writer; a subset is a run of hands. No image serves two subsets, and hardly a writer does: a figure on `test` speaks
of unseen writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from sklearn.datasets import load_digits

# Hands of each use, in the order of the data set. dev is what checkpoints and settings are chosen on, never test.
HANDS = {"base": 32, "align": 18, "refine": 11, "calibrate": 11, "dev": 6, "test": 20}
SUBSETS = tuple(HANDS)


@dataclass(frozen=True)
class Hand:
    """number: its place in the data set; ink: digit -> float32 [n, 8, 8], 0 paper, 1 full ink."""

    number: int
    ink: Mapping[int, np.ndarray]


@lru_cache(maxsize=1)
def runs() -> tuple[np.ndarray, ...]:
    """Row numbers in `load_digits` of every hand: each run ends as soon as it has all ten digits, the last with the data."""
    target = load_digits().target
    found: list[np.ndarray] = []
    begin, seen = 0, set[int]()
    for row, digit in enumerate(target.tolist()):
        seen.add(digit)
        if len(seen) == 10:
            found.append(np.arange(begin, row + 1))
            begin, seen = row + 1, set()
    return (*found[:-1], np.arange(found[-1][0], len(target)))


@lru_cache(maxsize=len(SUBSETS))
def hands(subset: str) -> tuple[Hand, ...]:
    """The hands of a subset. KeyError on an unknown one."""
    data = load_digits()
    ends = dict(zip(HANDS, accumulate(HANDS.values()), strict=True))
    made = []
    for number in range(ends[subset] - HANDS[subset], ends[subset]):
        rows = runs()[number]
        ink = data.images[rows].astype(np.float32) / 16.0
        made.append(Hand(number, {digit: ink[data.target[rows] == digit] for digit in range(10)}))
    return tuple(made)

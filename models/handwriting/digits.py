"""The handwriting itself: 1,797 real digits (scikit-learn's `load_digits`, 8 x 8 pixels), cut into forms, hands and subsets.

The data set goes form by form: each is a sheet on which somebody wrote the same digits in the same order, and nearly every
one is of another writer (there are 14, of 13 people). A subset is a run of whole forms. A hand is a run of neighbours on a
form that has every digit; a clip is of one hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
from sklearn.datasets import load_digits

FORMS = (0, 130, 256, 386, 516, 646, 776, 903, 1029, 1157, 1287, 1415, 1541, 1667)  # rows at which they begin
# Forms of each use, in the order of the data set. dev is what checkpoints and settings are chosen on, never test.
SUBSETS = {"base": 4, "align": 2, "refine": 2, "calibrate": 2, "dev": 1, "test": 3}


@dataclass(frozen=True)
class Hand:
    """number: its place in the data set; form: that of its form; ink: digit -> float32 [n, 8, 8], 0 paper, 1 full ink."""

    number: int
    form: int
    ink: Mapping[int, np.ndarray]


@lru_cache(maxsize=1)
def runs() -> tuple[tuple[int, np.ndarray], ...]:
    """Form and row numbers in `load_digits` of every hand: it ends as soon as it has all ten digits, the last of a form with
    the form."""
    target = load_digits().target
    found: list[tuple[int, np.ndarray]] = []
    for form, (begin, end) in enumerate(pairwise((*FORMS, len(target)))):
        starts, seen = [begin], set[int]()
        for row in range(begin, end):
            seen.add(int(target[row]))
            if len(seen) == 10:
                starts.append(row + 1)
                seen = set()
        found += [(form, np.arange(first, last)) for first, last in pairwise((*starts[:-1], end))]
    return tuple(found)


@lru_cache(maxsize=len(SUBSETS))
def hands(subset: str) -> tuple[Hand, ...]:
    """The hands of a subset. KeyError on an unknown one."""
    data = load_digits()
    end = dict(zip(SUBSETS, accumulate(SUBSETS.values()), strict=True))[subset]
    made = []
    for number, (form, rows) in enumerate(runs()):
        if end - SUBSETS[subset] <= form < end:
            ink = data.images[rows].astype(np.float32) / 16.0
            made.append(Hand(number, form, {digit: ink[data.target[rows] == digit] for digit in range(10)}))
    return tuple(made)

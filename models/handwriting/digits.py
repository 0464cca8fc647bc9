"""The handwriting itself: 1,797 real digits (scikit-learn's `load_digits`, 8 x 8 pixels), cut into subsets by use."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from sklearn.datasets import load_digits

# The share of the images that each use gets. No image serves two, so a figure on `test` speaks of unseen writing.
SHARES = {"base": 0.36, "align": 0.22, "refine": 0.14, "calibrate": 0.14, "test": 0.14}
SUBSETS = tuple(SHARES)

_PARTITION_SEED = 20260310  # fixed: were it an argument, one image could be in training here and in test there


@lru_cache(maxsize=1)
def partition() -> dict[str, dict[int, np.ndarray]]:
    """Row numbers in `load_digits`, by subset and digit: {subset: {digit: int [n]}}; disjoint, all rows together."""
    target = load_digits().target
    rng = np.random.default_rng(_PARTITION_SEED)
    cuts = np.cumsum(list(SHARES.values()))[:-1]
    rows: dict[str, dict[int, np.ndarray]] = {subset: {} for subset in SUBSETS}
    for digit in range(10):
        own = rng.permutation(np.flatnonzero(target == digit))
        for subset, part in zip(SUBSETS, np.split(own, np.round(cuts * len(own)).astype(int)), strict=True):
            rows[subset][digit] = part
    return rows


@lru_cache(maxsize=len(SUBSETS))
def images(subset: str) -> dict[int, np.ndarray]:
    """Ink of one subset by digit: {digit: float32 [n, 8, 8]}, 0 paper, 1 full ink. KeyError on an unknown subset."""
    ink = load_digits().images.astype(np.float32) / 16.0
    return {digit: ink[rows] for digit, rows in partition()[subset].items()}

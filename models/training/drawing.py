"""Which videos a round of reinforcement learning takes on: those from which something can be learned come more often.

Of a video that the model always gets right, or never, all rollouts get the same reward (difficulty-aware sampling: VITAL,
DeepVideo-R1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LEAST = 0.1  # weight of a video whose last group was all right or all wrong: it may have changed since


class Past:
    """What came of the videos so far: the share of right answers when a video was last drawn, NaN before."""

    def __init__(self, videos: int) -> None:
        self._success = np.full(videos, np.nan, np.float32)

    def note(self, place: int, success: float) -> None:
        self._success[place] = success

    def weights(self) -> np.ndarray:
        """float [videos]: 1 for one never drawn and for one that is right half the time, less towards 0 and 1."""
        spread = 4.0 * self._success * (1.0 - self._success)
        return np.where(np.isnan(spread), 1.0, np.maximum(spread, _LEAST))


def draw(past: Past, seed: Sequence[int]) -> np.ndarray:
    """All videos' places, in an order drawn without replacement by their weights; a pure function of its arguments."""
    # The largest of log-weight + Gumbel noise is drawn by weight, and so on among the rest (Gumbel-top-k).
    weights = past.weights()
    noise = np.random.default_rng(seed).gumbel(size=len(weights))
    return np.argsort(-(np.log(weights) + noise), kind="stable")

"""A clip as the model is shown it: pictures, and when each of them comes up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Clip:
    """pixels: uint8 [T, H, W, 3], RGB; times: when each picture comes up, seconds from the video's begin, ascending;
    duration: of the whole video, seconds; lost: pictures that stand for frames that did not decode."""

    pixels: np.ndarray
    times: Sequence[float]
    duration: float
    lost: int = 0

    @classmethod
    def even(cls, pixels: np.ndarray, fps: float) -> Clip:
        """Pictures that come at a constant rate, all there are."""
        return cls(pixels, [i / fps for i in range(len(pixels))], len(pixels) / fps)

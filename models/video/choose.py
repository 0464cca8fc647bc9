"""Which of the pictures that were looked at are shown to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Of full scale, what a still picture counts as: more than the noise of a codec, far less than a cut. It spreads pictures
# over stretches in which nothing happens.
_STILL = 0.01


@dataclass(frozen=True)
class Chooser:
    """candidates: pictures looked at for one that is shown, evenly spread. choose(pictures, count, cell): the numbers of
    `count` of them, ascending; pictures: candidates x count of uint8 [H, W, 3], sides multiples of `cell` pixels."""

    candidates: int
    choose: Callable[[Sequence[np.ndarray], int, int], list[int]]


def uniform(pictures: Sequence[np.ndarray], count: int, cell: int) -> list[int]:
    """Evenly spread."""
    return [(2 * i + 1) * len(pictures) // (2 * count) for i in range(count)]


def by_change(pictures: Sequence[np.ndarray], count: int, cell: int) -> list[int]:
    """At equal steps of cumulated change, so that what is short is seen and what stands still is not seen twice.

    A change is the mean absolute difference between neighbours, of one grey value a cell. One that makes up a `count`-th
    of all change, as a cut does where little else moves, always has its picture: the first one after it. Where nothing
    changes they are evenly spread.
    """
    greys = np.stack([_grey(picture, cell) for picture in pictures])
    change = np.abs(np.diff(greys, axis=0)).mean((1, 2)) / 255.0
    weight = _capped(np.concatenate([[0.0], change]) + _STILL, count)
    steps = np.cumsum(weight)
    wanted = (np.arange(count) + 0.5) / count * steps[-1]
    return np.searchsorted(steps, wanted, side="right").tolist()


def _grey(picture: np.ndarray, cell: int) -> np.ndarray:
    """float64 [rows, columns]: the mean of each cell, 0..255."""
    height, width, _ = picture.shape
    return picture.reshape(height // cell, cell, width // cell, cell, 3).mean((1, 3, 4))


def _capped(weight: np.ndarray, count: int) -> np.ndarray:
    """Weights cut so that none is more than a `count`-th of their sum: no picture can then be chosen twice."""
    ordered = np.sort(weight)[::-1]
    rest = ordered[::-1].cumsum()[::-1]  # rest[n]: the sum of all but the n largest
    caps = rest[:count] / (count - np.arange(count))  # the cap if exactly the n largest were cut
    cap = next(cap for cap, largest in zip(caps, ordered, strict=False) if largest <= cap * (1 + 1e-9))
    return np.minimum(weight, cap)


# An odd number of candidates has one in the middle: a still clip gives the very pictures of uniform sampling.
SAMPLINGS = {"uniform": Chooser(1, uniform), "scene": Chooser(5, by_change)}

"""How far figures would move on other videos: the bootstrap, by what was drawn together (Efron 1979, Cameron et al. 2008).

Clips that share a source, or rollouts that share a video, are no independent evidence, so whole clusters are drawn. Methods
that are compared are drawn alike: a difference is paired. What is trained and drawn once (weights, rollouts, the fit of a
calibrator) is held fixed. Calibration errors have no such interval: noise only adds to an absolute value, so their resamples
lie above them. What chance alone shows is told instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isclose, isnan

import numpy as np

from models.evaluation.figures import Predictions, chance_error, figures

DRAWS = 1000
_INSIDE = 0.95
_WITHOUT_ENDS = ("ece", "ece_debiased", "class_ece")
_AT_ONCE = 4_000_000  # weights in memory at a time: 32 MB


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval; NaN where there is none: a calibration error, or all is of one source."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} " + ("[unknown]" if isnan(self.low) else f"[{self.low:.3f}, {self.high:.3f}]")

    def json(self) -> dict[str, float | None]:
        return {name: None if isnan(end) else end for name, end in asdict(self).items()}


@dataclass(frozen=True)
class Report:
    """figures: method -> name -> interval; differences: the first method minus each other one, paired; chance: method ->
    (mean, 95th percentile) of the ECE that a perfectly calibrated method with these confidences would show."""

    figures: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    chance: dict[str, tuple[float, float]]


def report(methods: Mapping[str, Predictions], seed: int = 0, draws: int = DRAWS) -> Report:
    """Intervals for every method, and for the first one minus the others.

    All methods speak of the same clusters, whose numbers go from 0 up. Raises ValueError where they do not.
    """
    names = list(methods)
    clusters = {name: np.unique(found.cluster) for name, found in methods.items()}
    count = len(clusters[names[0]])
    for name, own in clusters.items():
        if not np.array_equal(own, np.arange(count)):
            raise ValueError(f"{name}: expected predictions of the same {count} videos or sources as {names[0]}")
    chance = {name: _chance(found, seed, draws) for name, found in methods.items()}
    drawn = {name: _resampled(found, count, seed, draws) for name, found in methods.items()}
    first = drawn[names[0]]
    found = {name: _intervals(own) for name, own in drawn.items()}
    for intervals in found.values():
        intervals["accuracy"] = _not_certain(intervals["accuracy"], count)
    less = {name: {figure: first[figure] - values for figure, values in drawn[name].items()} for name in names[1:]}
    return Report(found, {name: _intervals(own) for name, own in less.items()}, chance)


def mean(values: np.ndarray, cluster: np.ndarray) -> Interval:
    """The mean of values [N], each of one row, with an interval that also holds for few clusters; of differences, paired.

    cluster: int64 [N], what was drawn together. By Student's t with one degree of freedom less than there are clusters
    (Cameron & Miller 2015): a bootstrap of three or four clusters is far too sure.
    """
    from scipy.stats import t  # scikit-learn brings it; half a second to import

    _, place = np.unique(cluster, return_inverse=True)
    middle, count = float(values.mean()), int(place.max()) + 1
    if count < 2:
        return Interval(middle, np.nan, np.nan)
    off = np.bincount(place, weights=values - middle)
    error = np.sqrt(count / (count - 1) * (off**2).sum()) / len(values)
    half = float(t.ppf((1.0 + _INSIDE) / 2, count - 1) * error)
    return Interval(middle, middle - half, middle + half)


def _resampled(found: Predictions, clusters: int, seed: int, draws: int) -> dict[str, np.ndarray]:
    """Every figure of the rows as they are, and then of each draw: values [1 + draws]."""
    rng = np.random.default_rng(seed)  # the same draws for every method
    parts = [figures(found, found.weight[None])]
    draws = 0 if clusters < 2 else draws
    size = max(1, _AT_ONCE // len(found.weight))
    for begin in range(0, draws, size):
        counts = rng.multinomial(clusters, np.full(clusters, 1.0 / clusters), size=min(size, draws - begin))
        parts.append(figures(found, counts[:, found.cluster] * found.weight))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _intervals(drawn: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    return {name: _interval(values[:1] if name in _WITHOUT_ENDS else values) for name, values in drawn.items()}


def _interval(values: np.ndarray) -> Interval:
    outside = (1.0 - _INSIDE) / 2
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(drawn, [outside, 1.0 - outside]) if len(drawn) else [np.nan] * 2
    return Interval(float(values[0]), float(low), float(high))


def _not_certain(accuracy: Interval, clusters: int) -> Interval:
    """Where all was right, or nothing, there is nothing else to draw, and few sources do not make certain: the exact end
    (Clopper & Pearson 1934) for so many sources."""
    end = ((1.0 - _INSIDE) / 2) ** (1.0 / clusters)
    if not isclose(accuracy.low, accuracy.high, abs_tol=1e-9):
        return accuracy
    if isclose(accuracy.value, 1.0, abs_tol=1e-9):
        return replace(accuracy, low=end)
    return replace(accuracy, high=1.0 - end) if isclose(accuracy.value, 0.0, abs_tol=1e-9) else accuracy


def _chance(found: Predictions, seed: int, draws: int) -> tuple[float, float]:
    errors = chance_error(found, draws, seed)
    return float(errors.mean()), float(np.quantile(errors, _INSIDE))

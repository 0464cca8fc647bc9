"""Temperature scaling: one number that makes probabilities hold.

Labels that exclude each other are a softmax over their logits; independent ones a sigmoid each, judged as (row, label)
pairs. Temperature: Guo et al. 2017, "On Calibration of Modern Neural Networks": p = softmax(logits / T), T > 0 chosen to
minimise the negative log-likelihood on held-out data; few rows do not move it far. It never changes which label is most
probable, nor which side of 1/2 an independent one is on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

# Negative log-likelihood [N], nats, of logits [N, L] for targets at a temperature.
Nll = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
_LOW, _HIGH = math.log(0.02), math.log(50.0)
# Standard deviation of log T before anything was seen: five rows that are all right do not make a model certain.
_SPREAD = 0.5
_GRID = 65


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of logits [N, L] at a temperature; rows sum to 1."""
    scaled = logits / temperature
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probability that each label applies, of logits [N, L] at a temperature; each is in [0, 1] on its own."""
    return np.exp(-np.logaddexp(0.0, -logits / temperature))


def log_odds(probs: np.ndarray, least: float = 0.0) -> np.ndarray:
    """log p / (1 - p) of probabilities of any shape, which are taken to be `least` from 0 and from 1 at least."""
    kept = np.clip(probs, least, 1.0 - least)
    return np.log(kept) - np.log1p(-kept)


def largest(values: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The place [N] of the largest of values [N, L] in each row; equal ones go by slug, as decisions do."""
    by_slug = np.argsort(labels)
    return by_slug[np.asarray(values)[:, by_slug].argmax(axis=1)]


def nll(logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Negative log-likelihood [N], nats, of logits [N, L] for targets [N]."""
    scaled = logits / temperature
    top = scaled.max(axis=1)
    normaliser = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return normaliser - scaled[np.arange(len(targets)), targets]


def binary_nll(logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Negative log-likelihood [N], nats, the mean over the pairs of a row, of logits [N, L] for targets [N, L], 1 where the
    label applies."""
    scaled = logits / temperature
    return np.logaddexp(0.0, np.where(targets == 1, -scaled, scaled)).mean(axis=1)


def fit_temperature(logits: np.ndarray, targets: np.ndarray, nll: Nll = nll) -> float:
    """The most probable temperature in [0.02, 50], where log T is normal about 0 before the rows are seen.

    logits [N, L], targets as `nll` takes them. The best of a grid over log T, then golden section beside it. Raises
    ValueError without rows or with logits that are not finite.
    """
    if len(targets) == 0:
        raise ValueError("a temperature needs held-out rows, found none")
    if not np.isfinite(logits).all():
        raise ValueError("a temperature needs finite logits")

    def loss(log_t: float) -> float:
        return float(nll(logits, targets, math.exp(log_t)).mean()) + log_t**2 / (2 * _SPREAD**2 * len(targets))

    ratio = (math.sqrt(5) - 1) / 2
    grid = np.linspace(_LOW, _HIGH, _GRID).tolist()
    best = min(range(_GRID), key=lambda place: loss(grid[place]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    losses = [loss(x) for x in inner]
    while high - low > 1e-6:
        if losses[0] <= losses[1]:
            high, inner[1], losses[1] = inner[1], inner[0], losses[0]
            inner[0] = high - ratio * (high - low)
            losses[0] = loss(inner[0])
        else:
            low, inner[0], losses[0] = inner[0], inner[1], losses[1]
            inner[1] = low + ratio * (high - low)
            losses[1] = loss(inner[1])
    return math.exp((low + high) / 2)


def is_extreme(temperature: float) -> bool:
    """Whether a temperature says that logits mean next to nothing, or that whatever is most probable is right: more than
    three standard deviations from what was expected of it, or where temperatures end."""
    log_t = math.log(temperature)
    return abs(log_t) > 3 * _SPREAD or not _LOW + 1e-3 < log_t < _HIGH - 1e-3

"""Prediction sets that hold the right label as often as asked, whatever the probabilities are worth (split conformal).

Of rows like those that a threshold comes from (exchangeable with them), a share of at least `coverage` and at most
coverage + 1 / (n + 1) has its label in the set, n rows and no ties given (Vovk et al. 2005). `lac`: labels that are probable
enough, the smallest sets on average (Sadinle, Lei & Wasserman 2019); `aps`: the most probable labels up to a mass, as many
more where it is hard to tell (Romano, Sesia & Candes 2020, without randomisation). Neither says anything of a single class
unless each class has a threshold of its own (`per_label`, Mondrian).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Scheme = Literal["lac", "aps"]


def strangeness(probs: np.ndarray, scheme: Scheme) -> np.ndarray:
    """How ill each label suits each row, float64 [N, L], of probabilities [N, L].

    lac: 1 less its probability; aps: the mass of all labels up to it, the most probable first, its own included; equal
    ones go by column.
    """
    if scheme == "lac":
        return 1.0 - probs
    order = np.argsort(-probs, axis=1, kind="stable")
    mass = np.empty_like(probs, dtype=np.float64)
    np.put_along_axis(mass, order, np.cumsum(np.take_along_axis(probs, order, 1), 1), 1)
    return mass


def threshold(own: np.ndarray, coverage: float) -> float:
    """The strangeness up to which labels are in a set, from that of the right labels of other rows [n].

    The ceil((n + 1) x coverage)-th smallest; infinite where there are too few rows to promise the coverage.
    """
    place = math.ceil((len(own) + 1) * coverage - 1e-9)
    return float(np.sort(own)[place - 1]) if place <= len(own) else math.inf


def thresholds(
    probs: np.ndarray, targets: np.ndarray, coverage: float, scheme: Scheme, per_label: bool = False
) -> np.ndarray:
    """A threshold for each label [L], from rows that neither the probabilities [N, L] nor their temperature learned from.

    targets: int64 [N]; per_label: of each label's own rows alone.
    """
    own = strangeness(probs, scheme)[np.arange(len(targets)), targets]
    if not per_label:
        return np.full(probs.shape[1], threshold(own, coverage))
    return np.array([threshold(own[targets == label], coverage) for label in range(probs.shape[1])])


def sets(probs: np.ndarray, thresholds: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Which labels are in each row's set, bool [N, L]; the most probable one always is, which only adds to the coverage."""
    chosen = strangeness(probs, scheme) <= thresholds
    chosen[np.arange(len(probs)), probs.argmax(1)] = True
    return chosen

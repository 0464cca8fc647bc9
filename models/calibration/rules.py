"""Decision rules whose numbers come from videos that a calibrator has not learned from.

These are of weights that have seen the other folds, where what is served has seen all. So what is promised holds
approximately (cross-conformal, Vovk 2015), not to the letter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import beta

from models.calibration.conformal import Scheme, thresholds
from models.calibration.judged import Judged
from models.calibration.probabilities import largest

_SURE = 0.9  # that a precision is not below what was asked, in the long run
_ROOM, _STEP = 3, 1.25
_NEVER = 2.0  # no probability reaches it


def for_precision(judged: Judged, labels: Sequence[str], precision: float) -> dict[str, float]:
    """For each label the lowest probability from which on those that it is given to are right often enough.

    Often enough: the share of right ones is at least `precision` with 90 % confidence (Clopper & Pearson 1934, one-sided),
    where all videos of a source count as one. Some thresholds are tried from the highest down, each among a quarter more
    sources than the one before, until one fails: so the confidence is that of a single one (fixed-sequence testing). 2,
    which no probability reaches, where the first fails.
    """
    needed = np.log(1 - _SURE) / np.log(precision)  # sources, of which all have to be right
    top, found = largest(judged.probs, labels), {}
    for place, label in enumerate(labels):
        own = top == place
        probs, right = judged.probs[own, place], judged.targets[own] == place
        order = np.argsort(-probs, kind="stable")
        share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
        first = np.zeros(len(order), bool)
        first[np.unique(judged.cluster[own][order], return_index=True)[1]] = True
        sources = np.cumsum(first)
        least = beta.ppf(1 - _SURE, share * sources, (1 - share) * sources + 1)
        ends = np.append(probs[order][1:] != probs[order][:-1], True)[: len(order)]  # equal ones are taken together
        tried = _tries(np.where(ends, sources, 0), needed)
        failed = np.flatnonzero(~(least[tried] >= precision))
        good = tried[: failed[0]] if len(failed) else tried
        found[label] = float(probs[order][good[-1]]) if len(good) else _NEVER
    return found


def _tries(sources: np.ndarray, needed: float) -> np.ndarray:
    """Which thresholds are tried: places, in order. sources [n]: how many speak for each, 0 where it is none; needed: for
    the first, better some times as many: a single wrong one among the fewest would end it."""
    most = sources.max(initial=0)
    least, places = needed * (_ROOM if most >= _ROOM * needed else 1), []
    while least <= most:
        places.append(int(np.argmax(sources >= least)))
        least = max(sources[places[-1]], least) * _STEP
    return np.array(places, int)


def conformal(
    judged: Judged, labels: Sequence[str], coverage: float, scheme: Scheme, per_label: bool
) -> dict[str, float]:
    """How strange each label may be and still be in a prediction set; where nothing can be promised, 2: all are."""
    by_slug = np.argsort(labels)  # equal probabilities go by slug, as decisions do
    place = np.argsort(by_slug)
    own = thresholds(judged.probs[:, by_slug], place[judged.targets], coverage, scheme, per_label)
    return dict(zip(labels, np.minimum(own, _NEVER)[place].tolist(), strict=True))

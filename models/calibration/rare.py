"""Labels with too few rows to learn from: stand-ins teach a calibrator to believe the traces there.

A stand-in is one row of weight 1: a video whose traces say one thing, all of them and without a doubt, and are right. It is
smoothing: what a label's own rows say outweighs it soon.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from models.calibration.features import FLOOR, FeatureSpec, vector
from models.calibration.linear import Batches

ENOUGH = 5  # rows from which on a label is learnt from them alone


@dataclass(frozen=True)
class StandIns:
    """Rows to train on beside the others: features float64 [R, D], targets as `fit_linear` takes them.

    having: rows of each label that fewer than ENOUGH have; lacking: of independent labels, rows without each label that
    fewer than ENOUGH lack; both in the order of the labels.
    """

    features: np.ndarray
    targets: np.ndarray
    having: dict[str, int]
    lacking: dict[str, int]

    def beside(self, batches: Batches) -> Batches:
        """The same batches, and the stand-ins as the last one where there are any."""

        def run() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            yield from batches()
            if len(self.targets):
                yield self.features, self.targets

        return run


def stand_ins(spec: FeatureSpec, batches: Batches) -> StandIns:
    """Count the rows of every label in one pass, and stand in for those that have too few."""
    count, yes, total = 0, np.zeros(len(spec.labels), dtype=np.int64), np.zeros(len(spec.names))
    for features, targets in batches():
        count, total = count + len(targets), total + features.sum(0)
        yes += targets.sum(0) if spec.independent else np.bincount(targets, minlength=len(spec.labels))
    having = _few(spec, yes)
    lacking = _few(spec, count - yes) if spec.independent else {}
    named = [(label,) for label in having] + ([()] if lacking else [])
    usual = total / max(count, 1)
    features = np.array([_certain(spec, labels, usual) for labels in named]).reshape(-1, len(spec.names))
    applies = np.array([[label in labels for label in spec.labels] for labels in named], dtype=np.int64)
    applies = applies.reshape(-1, len(spec.labels))
    return StandIns(features, applies if spec.independent else applies.argmax(1), having, lacking)


def _few(spec: FeatureSpec, rows: Iterable[int]) -> dict[str, int]:
    return {label: int(n) for label, n in zip(spec.labels, rows, strict=True) if n < ENOUGH}


def _certain(spec: FeatureSpec, named: tuple[str, ...], usual: np.ndarray) -> np.ndarray:
    """The features of a video whose traces name just these labels; `usual`: the mean features of the rows."""
    probs = {label: 1.0 - FLOOR if label in named else FLOOR for label in spec.labels}
    trace = {
        "rollout_index": 0,
        "status": "ok",
        "labels": list(named),
        "observation": None,
        "think": None,
        "label_logprobs": {label: math.log(p) for label, p in probs.items()},
        "logprob_sum": None,
        "tokens": 0,
    }
    # Its length and its words would be like nobody's, and then they would be what marks the label.
    style = [name.startswith(("token_logprob/", "tokens/", "word/")) for name in spec.names]
    return np.where(style, usual, vector([trace], spec))

"""Labels with too few rows to learn from: stand-ins teach a calibrator to believe the traces there.

A stand-in is a video whose traces all say one thing, are sure of it, and are right: smoothing. It weighs as much as a small
share of the rows: a single row among thousands would leave the label to its prior, which is that it never happens. It weighs
the less the more rows there are that tell: of the label, or whose traces named it and were wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from models.calibration.features import FeatureSpec, vector

ENOUGH = 5  # rows that tell of a label from which on it is learnt from them alone
SHARE = 0.05  # weight of a stand-in in rows for each row there is, where nothing tells of its label
MOST = 0.25  # of all of them together: in a set of forty labels most may be rare, and the rows still have their say
# Probability that its traces give their answer: surer than real ones, and it would stand for none of them.
SURE = 0.8
_NAMED = 0.5  # share of a video's traces


@dataclass(frozen=True)
class StandIns:
    """Rows to train on beside the others: features float64 [R, D], targets as `fit_linear` takes them.

    weights: int64 [R], how many rows each counts for. having: rows of each label that fewer than ENOUGH have; lacking: of
    independent labels, rows without each label that fewer than ENOUGH lack; both in the order of the labels.
    """

    features: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    having: dict[str, int]
    lacking: dict[str, int]

    def beside(self, features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows, and after them the stand-ins, as often as they weigh."""
        rows = np.repeat(np.arange(len(self.targets)), self.weights)
        return np.concatenate([features, self.features[rows]]), np.concatenate([targets, self.targets[rows]])


def stand_ins(spec: FeatureSpec, features: np.ndarray, targets: np.ndarray) -> StandIns:
    """Count the rows of every label, and stand in for those that have too few. Rows as `fit_linear` takes them."""
    size, count = len(spec.labels), len(targets)
    applies = (targets if spec.independent else np.eye(size, dtype=np.int64)[targets]) == 1
    said = features[:, :size] >= _NAMED
    yes, refuted, doubted = applies.sum(0), (said & ~applies).sum(0), (~said & applies).sum(0)
    having = _few(spec, yes)
    lacking = _few(spec, count - yes) if spec.independent else {}
    named = [(label,) for label in having] + ([()] if lacking else [])
    telling = [yes[place] + refuted[place] for place, label in enumerate(spec.labels) if label in having]
    if lacking:  # one video for all of them: as long as one of them needs it
        telling.append(min((count - yes + doubted)[[label in lacking for label in spec.labels]]))
    usual = features.sum(0) / max(count, 1)
    certain = np.array([_certain(spec, labels, usual) for labels in named]).reshape(-1, len(spec.names))
    meant = np.array([[label in labels for label in spec.labels] for labels in named], dtype=np.int64).reshape(-1, size)
    full = max(1.0, min(SHARE, MOST / max(len(named), 1)) * count)
    weights = np.array([round(full * max(0.0, 1.0 - seen / ENOUGH)) for seen in telling], dtype=np.int64)
    return StandIns(certain, meant if spec.independent else meant.argmax(1), weights, having, lacking)


def _few(spec: FeatureSpec, rows: Iterable[int]) -> dict[str, int]:
    return {label: int(n) for label, n in zip(spec.labels, rows, strict=True) if n < ENOUGH}


def _certain(spec: FeatureSpec, named: tuple[str, ...], usual: np.ndarray) -> np.ndarray:
    """The features of a video whose traces name just these labels; `usual`: the mean features of the rows."""
    others = 1 if spec.independent else len(spec.labels) - 1
    probs = {label: SURE if label in named else (1.0 - SURE) / others for label in spec.labels}
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
    style = [name.startswith(("token_logprob/", "tokens/", "observation/", "think/", "word/")) for name in spec.names]
    return np.where(style, usual, vector([trace], spec))

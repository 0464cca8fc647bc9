"""What a calibrator says of videos that it has not seen, for every video there is (cross-fitting).

The videos are in folds. Each fold's logits come from weights of the others, so a temperature fitted on all of them is
fitted on videos that taught nothing; and for a figure it is fitted without the fold that the figure is of (the logits that
it is fitted on come from weights that have seen that fold, which one number can make no use of). The calibrator that is
kept then learns from all, as in scikit-learn's CalibratedClassifierCV(ensemble=False).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.calibration.both import BothCalibrator, BothSpec, fit_both
from models.calibration.effort import EffortCalibrator, EffortSpec, fit_effort
from models.calibration.features import FeatureSpec
from models.calibration.linear import LinearCalibrator, fit_linear
from models.calibration.probabilities import Nll, binary_nll, fit_temperature, largest, log_odds, nll, sigmoid, softmax
from models.calibration.rare import StandIns, stand_ins
from models.calibration.text import TextCalibrator, TextSpec, fit_text
from models.calibration.vote import VoteCalibrator


@dataclass(frozen=True)
class Examples:
    """features: [N, D], as the spec of the calibrator gives them; targets int64: [N], the index of the label, or of
    independent labels [N, L], 1 where one applies; fold, cluster int64 [N]: rows of one cluster (a source that videos share)
    are in one fold; video: [N], ids."""

    features: Any
    targets: np.ndarray
    fold: np.ndarray
    cluster: np.ndarray
    video: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def of(self, rows: np.ndarray) -> Examples:
        return Examples(**{name: value[rows] for name, value in vars(self).items()})


# From examples to a calibrator, see calibrator.py.
Fit = Callable[[Examples], Any]


def linear(spec: FeatureSpec, l2: float) -> Callable[[Examples], LinearCalibrator]:
    """Fits the light calibrator, with stand-ins for rare labels."""

    def fit(examples: Examples) -> LinearCalibrator:
        return fit_linear(spec, *rare(spec, examples).beside(examples.features, examples.targets), l2)

    return fit


def rare(spec: FeatureSpec, examples: Examples) -> StandIns:
    """What stands in for labels with few rows among these."""
    return stand_ins(spec, examples.features, examples.targets)


def text(spec: TextSpec) -> Callable[[Examples], TextCalibrator]:
    """Fits the calibrator that reads."""
    return lambda examples: fit_text(spec, examples.features, examples.targets, examples.cluster)


def both(spec: BothSpec, text: TextCalibrator) -> Callable[[Examples], BothCalibrator]:
    """Weighs what a reviewing model says beside what one that has learned to read does."""
    return lambda examples: fit_both(spec, text, examples.features, examples.targets)


def effort(spec: EffortSpec, l2: float, coverage: float) -> Callable[[Examples], EffortCalibrator]:
    """Fits a plan of effort, each step by the videos that come so far."""
    return lambda examples: fit_effort(spec, examples.features, examples.targets, examples.fold, l2, coverage)


def vote(spec: FeatureSpec, rollouts: int) -> Callable[[Examples], VoteCalibrator]:
    """A vote learns nothing."""
    return lambda examples: VoteCalibrator(spec, rollouts)


def out_of_fold(examples: Examples, fit: Fit) -> np.ndarray:
    """Logits [N, L] of every row from what was fitted on the folds that it is not in. Raises ValueError with one fold."""
    folds = np.unique(examples.fold)
    if len(folds) < 2:
        raise ValueError("cross-fitting needs two folds with rows at least")
    parts = {
        fold: fit(examples.of(examples.fold != fold)).logits(examples.features[examples.fold == fold]) for fold in folds
    }
    found = np.empty((len(examples), next(iter(parts.values())).shape[1]))
    for fold, part in parts.items():
        found[examples.fold == fold] = part
    return found


def honest(logits: np.ndarray, examples: Examples, rows_nll: Nll) -> np.ndarray:
    """Out-of-fold logits [N, L], each row at the temperature that the other folds have."""
    found = np.empty_like(logits)
    for fold in np.unique(examples.fold):
        own = examples.fold == fold
        found[own] = logits[own] / fit_temperature(logits[~own], examples.targets[~own], rows_nll)
    return found


def constant_nll(examples: Examples, labels: int) -> np.ndarray:
    """NLL [N] of saying, of every row, how often each label is right in the other folds (one row added to each)."""
    found = np.empty(len(examples))
    independent = examples.targets.ndim == 2
    applies = examples.targets if independent else np.eye(labels)[examples.targets]
    for fold in np.unique(examples.fold):
        own = examples.fold == fold
        seen = applies[~own]
        if independent:
            share = (seen.sum(0) + 1) / (len(seen) + 2)
            logits = log_odds(share)
        else:
            logits = np.log((seen.sum(0) + 1) / (len(seen) + labels))
        found[own] = nll_of(examples)(np.tile(logits, (own.sum(), 1)), examples.targets[own], 1.0)
    return found


def nll_of(examples: Examples) -> Nll:
    """How these targets are judged."""
    return binary_nll if examples.targets.ndim == 2 else nll


@dataclass(frozen=True)
class HeldOut:
    """temperature: fitted on all rows, each by weights that have not seen it; before, nll: NLL [N] at temperature 1 and at
    the other folds' one; right: bool [N] or [N, L], whether the more probable side was; probs: [N, L], at the other folds'
    temperature."""

    temperature: float
    before: np.ndarray
    nll: np.ndarray
    right: np.ndarray
    probs: np.ndarray


def cross_fit(examples: Examples, fit: Fit, labels: Sequence[str]) -> HeldOut | None:
    """What a way of fitting says of videos that it has not seen; None where all are in one fold."""
    if len(np.unique(examples.fold)) < 2:
        return None
    logits, rows_nll = out_of_fold(examples, fit), nll_of(examples)
    tempered = honest(logits, examples, rows_nll)
    independent = examples.targets.ndim == 2
    guess = logits >= 0 if independent else largest(logits, labels)
    return HeldOut(
        temperature=fit_temperature(logits, examples.targets, rows_nll),
        before=rows_nll(logits, examples.targets, 1.0),
        nll=rows_nll(tempered, examples.targets, 1.0),
        right=guess == examples.targets,
        probs=sigmoid(tempered) if independent else softmax(tempered),
    )

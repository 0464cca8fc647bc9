"""What a calibrator said of videos that it had not learned from, kept beside it: decision rules and comparisons rest on it.

These are out-of-fold probabilities: of weights that have seen the other folds, at a temperature of the other folds, where
what is served has seen all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from models.evaluation.intervals import Interval, mean

_LEAST = 1e-12  # probability, whose logarithm is still a number


def numbers(ids: Iterable[str]) -> np.ndarray:
    """A number of 60 bits for each video, int64 [N]: of a million no two are alike, as good as surely."""
    return np.array([int(hashlib.sha256(id.encode()).hexdigest()[:15], 16) for id in ids], np.int64)


@dataclass(frozen=True)
class Judged:
    """Honest probabilities [N, L] of videos that taught nothing of them, their right labels, int64 [N] or of independent
    labels [N, L], and their sources; video: int64 [N], see `numbers`."""

    probs: np.ndarray
    targets: np.ndarray
    cluster: np.ndarray
    video: np.ndarray

    def packed(self) -> bytes:
        """As safetensors."""
        return save_tensors({name: np.ascontiguousarray(value) for name, value in vars(self).items()})

    @classmethod
    def unpacked(cls, data: bytes) -> Judged:
        """Raises SafetensorError or TypeError for something else."""
        return cls(**load_tensors(data))

    def of(self, rows: np.ndarray) -> Judged:
        return Judged(**{name: value[rows] for name, value in vars(self).items()})

    def ordered(self, labels: Sequence[str], wanted: Sequence[str]) -> Judged:
        """The same with the columns of `labels` in the order of `wanted`."""
        place = [list(labels).index(label) for label in wanted]
        if self.targets.ndim == 2:
            return replace(self, probs=self.probs[:, place], targets=self.targets[:, place])
        return replace(self, probs=self.probs[:, place], targets=np.argsort(place)[self.targets])

    def nll(self) -> np.ndarray:
        """Negative log-likelihood of each row [N]; of independent labels their sum."""
        if self.targets.ndim == 2:
            of_truth = np.where(self.targets == 1, self.probs, 1 - self.probs)
            return -np.log(np.maximum(of_truth, _LEAST)).sum(1)
        return -np.log(np.maximum(self.probs[np.arange(len(self.targets)), self.targets], _LEAST))

    def certainty(self) -> np.ndarray:
        """Probability of the most probable label [N]; of independent labels that of the likelier side of the least certain
        one."""
        return np.maximum(self.probs, 1 - self.probs).min(1) if self.targets.ndim == 2 else self.probs.max(1)

    def spent(self, costs: np.ndarray, review: float) -> np.ndarray:
        """What each row costs [N] where the label of least expected cost is given, or a person looks where that is cheaper.

        costs: [L, L], of the right label by the one given; labels exclude each other.
        """
        expected = self.probs @ costs
        return np.where(expected.min(1) > review, review, costs[self.targets, expected.argmin(1)])


def common(one: Judged, other: Judged) -> tuple[Judged, Judged]:
    """The rows of the videos that both are about and hold the same labels right for, in the same order."""
    _, mine, theirs = np.intersect1d(one.video, other.video, assume_unique=True, return_indices=True)
    one, other = one.of(mine), other.of(theirs)
    same = one.targets == other.targets
    same = same.all(1) if same.ndim == 2 else same
    return one.of(same), other.of(same)


def differences(one: Judged, other: Judged, costs: np.ndarray | None, review: float) -> dict[str, Interval]:
    """How much one loses more than the other, a video, paired: nll, and cost where there is a matrix of costs."""
    lost = {"nll": one.nll() - other.nll()}
    if costs is not None:
        lost["cost"] = one.spent(costs, review) - other.spent(costs, review)
    return {name: mean(values, one.cluster) for name, values in lost.items()}

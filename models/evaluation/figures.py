"""Figures of predictions with probabilities, for many weightings of the same rows at once.

A weighting is one resample of a bootstrap (see intervals.py), so every figure here is computed from float64 weights [B, N],
and bins, orders and ties are those of the rows themselves. All methods that are compared share the videos, and a video
weighs the same whether a method said one thing of it or K.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

BINS = 15
NOTHING = -1  # the guess of a method that gave no answer: it counts as wrong
_LEAST = 1e-12  # of a probability, before its logarithm is taken
_DIGITS = 9  # confidences that differ by less are one: the same votes, summed in another order, are no other confidence


@dataclass(frozen=True)
class Predictions:
    """What one method said of videos whose labels are known.

    probs: float64 [N, C], rows sum to 1; guess, truth: int64 [N], places among the C answers, guess NOTHING for none;
    weight: float64 [N], of each row; case: int64 [N], which video; cluster: int64 [N], what was drawn together, a video or
    its source, numbered from 0. The answers are the labels, C = L. Where labels are independent, each row asks whether one
    of them applies: asked: int64 [N], which; the answers are no and yes, C = 2.
    confidence: that of the guess, of no answer 1 / C.
    """

    labels: tuple[str, ...]
    probs: np.ndarray
    guess: np.ndarray
    truth: np.ndarray
    weight: np.ndarray
    case: np.ndarray
    cluster: np.ndarray
    asked: np.ndarray | None = None

    @cached_property
    def right(self) -> np.ndarray:
        """1 where the guess is the truth, else 0; float64 [N]."""
        return (self.guess == self.truth).astype(np.float64)

    @cached_property
    def confidence(self) -> np.ndarray:
        given = self.probs[np.arange(len(self.guess)), np.maximum(self.guess, 0)]
        return np.where(self.guess == NOTHING, 1.0 / self.probs.shape[1], given).round(_DIGITS)

    @cached_property
    def by_label(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """For each label: which rows are about it (bool [N]), and of all rows whether it is true, said, and how probable."""
        found = []
        for place in range(len(self.labels)):
            answer = place if self.asked is None else 1
            about = np.ones(len(self.truth), bool) if self.asked is None else self.asked == place
            found.append((about, self.truth == answer, self.guess == answer, self.probs[:, answer].round(_DIGITS)))
        return found

    def of(self, rows: np.ndarray) -> Predictions:
        """Some of the rows, a bool [N]; the clusters that are left are numbered anew."""
        cut = {name: getattr(self, name)[rows] for name in ("probs", "guess", "truth", "weight", "case")}
        _, cluster = np.unique(self.cluster[rows], return_inverse=True)
        return replace(self, **cut, cluster=cluster, asked=None if self.asked is None else self.asked[rows])


def figures(found: Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """name -> value [B] of every figure, for weights [B, N] that are at least 0 and not all 0.

    accuracy; answered, the share with a usable answer; f1/<label>, NaN of one that is neither true nor said, and macro_f1,
    the mean of the others; nll (nats), brier (0 .. 2); ece and class_ece, the mean over labels, by `calibration_error`;
    ece_debiased by `debiased_error`; aurc, the mean risk over all coverages (Geifman & El-Yaniv 2017); auroc, the
    probability that a right guess has more confidence than a wrong one, ties half, and NaN where all are right or all wrong.
    """
    rows, total = np.arange(len(found.truth)), weights.sum(1)
    truth = np.eye(found.probs.shape[1])[found.truth]
    nll = -np.log(np.maximum(found.probs[rows, found.truth], _LEAST))
    f1 = [_f1(true & about, said & about, weights) for about, true, said, _ in found.by_label]
    class_ece = [
        calibration_error(prob[about], true[about].astype(np.float64), weights[:, about])
        for about, true, _, prob in found.by_label
    ]
    return {
        "accuracy": weights @ found.right / total,
        "answered": weights @ (found.guess != NOTHING) / total,
        "macro_f1": _mean_of_defined(np.array(f1)),
        "nll": weights @ nll / total,
        "brier": weights @ ((found.probs - truth) ** 2).sum(1) / total,
        "ece": calibration_error(found.confidence, found.right, weights),
        "ece_debiased": debiased_error(found.confidence, found.right, weights),
        "class_ece": np.mean(class_ece, axis=0),
        "aurc": area_under_risk(found.confidence, found.right, weights),
        "auroc": area_under_roc(found.confidence, found.right, weights),
    } | {f"f1/{label}": value for label, value in zip(found.labels, f1, strict=True)}


def bins_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of every row, int64 [N]: equally many rows in each, and rows of equal confidence in one bin, the lower one."""
    order = np.argsort(confidence, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    values, block = np.unique(confidence, return_inverse=True)
    first = np.full(len(values), len(order))
    np.minimum.at(first, block, place)
    return first[block] * bins // max(len(order), 1)


def calibration_error(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray, bins: int = BINS) -> np.ndarray:
    """ECE [B] over equal-mass bins: sum over bins of their share of the weight times |share right - mean confidence|.

    The bins are those of the rows, see `bins_of`. Few rows show an error even where there is none: see `chance_error`.
    """
    own = np.eye(bins)[bins_of(confidence, bins)]
    total = weights.sum(1)
    errors = np.abs(weights @ (own * (right - confidence)[:, None])).sum(1)
    return np.divide(errors, total, out=np.zeros_like(errors), where=total > 0)


def debiased_error(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Root of the mean squared calibration error [B] over the same bins, less what chance adds to it (Kumar et al. 2019,
    "Verified Uncertainty Calibration"), and 0 where chance adds more. At least the ECE without its bias, as a root of
    squares is at least the mean. Weights count as that many rows."""
    own = np.eye(bins)[bins_of(confidence, bins)]
    size = weights @ own
    share, said = (
        np.divide(weights @ (own * of[:, None]), size, out=np.zeros_like(size), where=size > 0)
        for of in (right, confidence)
    )
    # A bin of one row says nothing of its spread.
    chance = np.divide(share * (1.0 - share), size - 1.0, out=np.zeros_like(size), where=size > 1.0)
    squares = np.where(size > 1.0, (share - said) ** 2 - chance, 0.0)
    total = size.sum(1)
    found = np.divide((size * squares).sum(1), total, out=np.zeros_like(total), where=total > 0)
    return np.sqrt(np.maximum(found, 0.0))


def chance_error(found: Predictions, draws: int, seed: int) -> np.ndarray:
    """ECE [draws] of a method with these very confidences that is perfectly calibrated: what chance alone shows.

    An ECE below its 95th percentile is no evidence of anything. Rows of one video are right or wrong on their own, with the
    probability that was said.
    """
    rng = np.random.default_rng(seed)
    own = np.eye(BINS)[bins_of(found.confidence)] * found.weight[:, None]
    right = rng.random((draws, len(found.weight))) < found.confidence
    return np.abs((right - found.confidence) @ own).sum(1) / found.weight.sum()


def area_under_risk(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AURC [B]: the mean, over the rows as they come by falling confidence, of the error among them so far.

    Rows of equal confidence come in no order: each meets its block's mean error.
    """
    order = np.argsort(-confidence, kind="stable")
    weights, wrong, starts = weights[:, order], 1.0 - right[order], _starts(confidence[order])
    block_weight = np.add.reduceat(weights, starts, axis=1)
    block_wrong = np.add.reduceat(weights * wrong, starts, axis=1)
    rate = np.divide(block_wrong, block_weight, out=np.zeros_like(block_wrong), where=block_weight > 0)
    sizes = np.diff([*starts, len(order)])
    errors = np.cumsum(weights * np.repeat(rate, sizes, axis=1), axis=1)
    seen = np.cumsum(weights, axis=1)
    risk = np.divide(errors, seen, out=np.zeros_like(errors), where=seen > 0)
    return (weights * risk).sum(1) / weights.sum(1)


def area_under_roc(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC [B] of confidence against being right, ties half; NaN where one side has no weight."""
    order = np.argsort(confidence, kind="stable")
    starts = _starts(confidence[order])
    hit = np.add.reduceat(weights[:, order] * right[order], starts, axis=1)
    miss = np.add.reduceat(weights[:, order] * (1.0 - right[order]), starts, axis=1)
    below = np.cumsum(miss, axis=1) - miss
    pairs = hit.sum(1) * miss.sum(1)
    won = (hit * (below + 0.5 * miss)).sum(1)
    return np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)


def _starts(ordered: np.ndarray) -> np.ndarray:
    """Where each block of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _f1(true: np.ndarray, said: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 [B] of one label; NaN of one that is never true nor said."""
    hit, relevant, chosen = weights @ (true & said), weights @ true, weights @ said
    return np.divide(2 * hit, relevant + chosen, out=np.full_like(hit, np.nan), where=relevant + chosen > 0)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """The mean [B] over the first axis of values [L, B], but for NaN."""
    known = ~np.isnan(values)
    return np.divide(
        np.where(known, values, 0.0).sum(0), known.sum(0), out=np.full(values.shape[1], np.nan), where=known.any(0)
    )

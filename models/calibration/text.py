"""The calibrator that only reads (`kind: text`): regression over the words of a video's traces beside votes and agreement.

It needs no video and no probabilities, so it works on traces of other systems. Words and pieces of words are hashed
(Weinberger et al. 2009), weighed by how rare they are among what it learned from (tf-idf), and scaled to unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.calibration.features import TRACE_FIELDS, FeatureSpec, Trace, vector
from models.language.rule import code_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

WORDS, PIECES = 1 << 13, 1 << 14  # buckets of one or two words, and of three to five signs within a word
_WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0)  # inverse strengths of the penalty (scikit-learn's C) that are tried
_PARTS = 3  # of what it learns from, to choose among them
_MOST_STEPS = 1000
_MIDDLE = 0.3  # where nothing can be tried


@dataclass(frozen=True)
class TextSpec(FeatureSpec):
    """hashed_words stays 0. prompts: how many indices of traces stand for a prompt each, which may be worth more than
    another; 0 where traces are drawn alike."""

    prompts: int = 0

    @property
    def names(self) -> list[str]:
        """The name of every feature beside the hashed ones, in order."""
        said = [f"said/{index}/{label}" for index in range(self.prompts) for label in self.labels]
        return [*super().names, *said, "length/mean", "length/spread", "alike"]

    @property
    def width(self) -> int:
        return len(self.names) + WORDS + PIECES

    @property
    def reads(self) -> tuple[str, ...]:
        return (*TRACE_FIELDS, "text")

    def matrix(self, videos: Sequence[Sequence[Trace]]) -> csr_matrix:
        """Features [N, width] of videos by their traces, of hashed ones the logarithm of one and their count."""
        from scipy.sparse import csr_matrix, hstack

        plain = np.stack([np.concatenate([vector(traces, self), self._told(traces)]) for traces in videos])
        texts = [" \n ".join(trace["text"] or "" for trace in traces) for traces in videos]
        hashed = [each.transform(texts) for each in _hashers()]
        for part in hashed:
            part.data = np.log1p(part.data)
        return hstack([csr_matrix(plain), *hashed]).tocsr()

    def _told(self, traces: Sequence[Trace]) -> np.ndarray:
        """What each prompt's trace names [prompts x L], how long traces are, and how much their words are the same."""
        said = np.zeros((self.prompts, len(self.labels)))
        for trace in traces:
            if trace["rollout_index"] < self.prompts and trace["status"] == "ok":
                said[trace["rollout_index"]] += [label in trace["labels"] for label in self.labels]
        lengths = np.log1p([len(trace["text"] or "") for trace in traces])
        return np.concatenate([said.ravel(), [lengths.mean(), lengths.std(), _alike(traces)]])


def _alike(traces: Sequence[Trace]) -> float:
    """How much of two traces' words is in both, on average over pairs (Jaccard); 1 of a single trace."""
    words = [set((trace["text"] or "").casefold().split()) for trace in traces]
    shares = [len(a & b) / max(len(a | b), 1) for a, b in combinations(words, 2)]
    return float(np.mean(shares)) if shares else 1.0


def _hashers() -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import HashingVectorizer  # half a second to import

    plain: dict[str, Any] = {"alternate_sign": False, "norm": None, "dtype": np.float64}
    return (
        HashingVectorizer(n_features=WORDS, ngram_range=(1, 2), token_pattern=r"\w+", **plain),
        HashingVectorizer(n_features=PIECES, analyzer="char_wb", ngram_range=(3, 5), **plain),
    )


@dataclass(frozen=True)
class TextCalibrator:
    """mean, scale: float64 [D], of the plain features; rarity [H], of the hashed ones; weight [L, D + H]; bias [L]."""

    spec: TextSpec
    mean: np.ndarray
    scale: np.ndarray
    rarity: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0
    kind: ClassVar[str] = "text"

    def logits(self, features: csr_matrix) -> np.ndarray:
        """Uncalibrated logits [N, L] of features [N, width]."""
        return _inputs(features, self.mean, self.scale, self.rarity) @ self.weight.T + self.bias

    def tensors(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in ("mean", "scale", "rarity", "weight", "bias")}

    def parameters(self) -> dict[str, Any]:
        rule = self.spec.rule
        return {"prompts": self.spec.prompts} | ({"rule": rule, "rule_code": code_of(rule)} if rule else {})


def _inputs(features: csr_matrix, mean: np.ndarray, scale: np.ndarray, rarity: np.ndarray) -> csr_matrix:
    """Plain features at mean 0 and spread 1, hashed ones weighed and at length 1."""
    from scipy.sparse import csr_matrix, diags, hstack

    plain = (features[:, : len(mean)].toarray() - mean) / scale
    hashed = features[:, len(mean) :] @ diags(rarity)
    lengths = np.sqrt(np.asarray(hashed.multiply(hashed).sum(1)).ravel())
    return hstack([csr_matrix(plain), diags(1 / np.maximum(lengths, 1e-12)) @ hashed]).tocsr()


def fit_text(spec: TextSpec, features: csr_matrix, targets: np.ndarray, cluster: np.ndarray) -> TextCalibrator:
    """Penalised regression; how much it is penalised is chosen by what it says of sources that are left out in turn.

    features [N, width]; targets int64 [N] or of independent labels [N, L]; cluster int64 [N]: what shares a source.
    """
    count = len(spec.names)
    plain, hashed = features[:, :count].toarray(), features[:, count:]
    spread = plain.std(0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    having = np.asarray((hashed > 0).sum(0)).ravel()
    rarity = np.log((1 + features.shape[0]) / (1 + having)) + 1.0  # smoothed, as scikit-learn's
    made = _inputs(features, plain.mean(0), scale, rarity)
    chosen = _strength(made, targets, cluster, len(spec.labels))
    weight, bias = _regress(made, targets, len(spec.labels), chosen)
    return TextCalibrator(spec, plain.mean(0), scale, rarity, weight, bias)


def _strength(inputs: csr_matrix, targets: np.ndarray, cluster: np.ndarray, labels: int) -> float:
    from models.calibration.probabilities import binary_nll, nll

    part = np.unique(cluster, return_inverse=True)[1] % _PARTS
    if len(np.unique(part)) < _PARTS:
        return _MIDDLE
    judge = binary_nll if targets.ndim == 2 else nll
    lost = dict.fromkeys(_WEIGHTS, 0.0)
    for left_out in range(_PARTS):
        own = part == left_out
        for strength in _WEIGHTS:
            weight, bias = _regress(inputs[~own], targets[~own], labels, strength)
            lost[strength] += float(judge(inputs[own] @ weight.T + bias, targets[own], 1.0).sum())
    return min(lost, key=lost.__getitem__)


def _regress(inputs: csr_matrix, targets: np.ndarray, labels: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights [L, D] and biases [L]. A label that no row has, or that all have, is told by how often it comes alone."""
    active = np.unique(inputs.indices)  # of the others nothing is learned
    found, bias = _regress_active(inputs[:, active], targets, labels, strength)
    weight = np.zeros((labels, inputs.shape[1]))
    weight[:, active] = found
    return weight, bias


def _regress_active(
    inputs: csr_matrix, targets: np.ndarray, labels: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    if targets.ndim == 2:
        pairs = [_two_sided(inputs, targets[:, label], strength) for label in range(labels)]
        return np.stack([weight for weight, _ in pairs]), np.array([bias for _, bias in pairs])
    weight, bias = np.zeros((labels, inputs.shape[1])), np.full(labels, -np.log(1.0 + len(targets)))
    known = np.unique(targets)
    if len(known) == 2:  # the two share what one regression finds
        weight[known[1]], bias[known] = (found := _two_sided(inputs, targets == known[1], strength))[0], (0.0, found[1])
    elif len(known) == 1:
        bias[known] = 0.0
    elif len(known):
        model = _logistic(strength).fit(inputs, targets)
        weight[known], bias[known] = model.coef_, model.intercept_
    return weight, bias


def _two_sided(inputs: csr_matrix, applies: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    if len(np.unique(applies)) < 2:
        side = 1.0 if len(applies) and applies[0] else -1.0
        return np.zeros(inputs.shape[1]), side * float(np.log(1.0 + len(applies)))
    model = _logistic(strength).fit(inputs, applies)
    return model.coef_[0], float(model.intercept_[0])


def _logistic(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=_MOST_STEPS)

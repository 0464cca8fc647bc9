"""The calibrator that watches and reads (`kind: both`): what a model says of a video's traces beside the frames
(reviewer.py) and what their words say (text.py), weighed as a logarithmic opinion pool (Genest and Zidek 1986).

The two err on different videos: who reads cannot see what all traces overlook, who watches learned less from their words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.calibration.features import FeatureSpec, Trace
from models.calibration.probabilities import fit_temperature, nll
from models.calibration.text import TextCalibrator, TextSpec

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_SHARES = np.linspace(0.0, 1.0, 21)  # that are tried


@dataclass(frozen=True)
class BothSpec(FeatureSpec):
    """What the reviews say [L], then the features of the text. reviews: the id of their recipe; prompts: as of TextSpec."""

    reviews: str = ""
    prompts: int = 0

    @property
    def watched(self) -> FeatureSpec:
        """Of reviews."""
        return FeatureSpec(self.labels, 0)

    @property
    def text(self) -> TextSpec:
        """Of the traces that they are about."""
        return TextSpec(self.labels, 0, False, self.rule, self.prompts)

    @property
    def width(self) -> int:
        return len(self.labels) + self.text.width

    @property
    def reads(self) -> tuple[str, ...]:
        return ("recipe_id", *self.text.reads)

    def matrix(self, videos: Sequence[Sequence[Trace]]) -> csr_matrix:
        """Features [N, width] of videos by their traces and the reviews of those."""
        from scipy.sparse import csr_matrix, hstack

        reviews = [[trace for trace in traces if trace["recipe_id"] == self.reviews] for traces in videos]
        written = [[trace for trace in traces if trace["recipe_id"] != self.reviews] for traces in videos]
        said = self.watched.evidence(self.watched.matrix(reviews))
        return hstack([csr_matrix(said), self.text.matrix(written)]).tocsr()


@dataclass(frozen=True)
class BothCalibrator:
    """text: what learned to read; share in [0, 1]: how much of the sum of logarithms is the reviews'."""

    spec: BothSpec
    text: TextCalibrator
    share: float
    temperature: float = 1.0
    kind: ClassVar[str] = "both"

    def logits(self, features: csr_matrix) -> np.ndarray:
        """Uncalibrated logits [N, L] of features [N, width]."""
        watched, read = _parts(self.text, features)
        return self.share * watched + (1.0 - self.share) * read

    def tensors(self) -> dict[str, np.ndarray]:
        return self.text.tensors() | {"share": np.array([self.share])}

    def parameters(self) -> dict[str, Any]:
        return self.text.parameters() | {"reduction": "mean", "reviews": self.spec.reviews}


def _parts(text: TextCalibrator, features: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of probabilities [N, L], of reviews and of texts."""
    labels = len(text.spec.labels)
    read = text.logits(features[:, labels:])
    top = read.max(axis=1, keepdims=True)
    return features[:, :labels].toarray(), read - top - np.log(np.exp(read - top).sum(axis=1, keepdims=True))


def fit_both(spec: BothSpec, text: TextCalibrator, features: csr_matrix, targets: np.ndarray) -> BothCalibrator:
    """The share that loses least, each at a temperature of its own, on videos from which neither part has learned.

    features [N, width]; targets int64 [N].
    """
    made = BothCalibrator(spec, text, 0.0)

    def loss(share: float) -> float:
        logits = replace(made, share=share).logits(features)
        return float(nll(logits, targets, fit_temperature(logits, targets)).mean())

    return replace(made, share=min(map(float, _SHARES), key=loss))

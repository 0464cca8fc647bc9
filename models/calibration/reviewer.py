"""The calibrator that watches the video (`kind: vlm`): a fine-tuned model reads each trace beside the frames and names a
label by its code; the mean of what it says over a video's traces, then a temperature (DeepIntuit, stage 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from models.calibration.features import FeatureSpec

_FLOOR = 1e-9  # of a probability: keeps logarithms finite


def mean_of(logprobs: np.ndarray) -> np.ndarray:
    """Probabilities [labels] from log-probabilities of their codes [traces, labels]: the mean over the traces of what each
    says, other tokens left out."""
    weights = np.exp(logprobs - logprobs.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True)).mean(0)


@dataclass(frozen=True)
class ReviewerCalibrator:
    """asks: what it is asked and by which model, as JSON; prior: share of each label among what it learned from, which is
    all that it says of a video that it cannot watch."""

    spec: FeatureSpec
    prior: tuple[float, ...]
    asks: Mapping[str, Any] = field(hash=False)
    temperature: float = 1.0
    kind: ClassVar[str] = "vlm"

    def features(self, row: Mapping[str, Any]) -> np.ndarray:
        """Logarithm of the row's `reviewed`, see mean_of; of the prior where that is None."""
        found = self.prior if row["reviewed"] is None else row["reviewed"]
        return np.log(np.maximum(np.asarray(found, dtype=np.float64), _FLOOR))

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features

    def tensors(self) -> dict[str, np.ndarray]:
        return {}

    def parameters(self) -> dict[str, Any]:
        return {"prior": list(self.prior), "asks": dict(self.asks)}

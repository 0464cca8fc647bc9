"""The tempered vote (`kind: vote`): how the traces voted, and one temperature. What every other calibrator has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.calibration.features import FeatureSpec

_HALF = 0.5  # of a vote, added to every count (Krichevsky & Trofimov 1981): no label is ruled out by a few traces


@dataclass(frozen=True)
class VoteCalibrator:
    """rollouts: traces of a video (K); temperature > 0."""

    spec: FeatureSpec
    rollouts: int
    temperature: float = 1.0
    kind: ClassVar[str] = "vote"

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Uncalibrated logits [N, L] of features [N, D]: the logarithm of the votes; of independent labels, of their odds.

        A trace without a usable answer votes for nothing.
        """
        named = features[:, : len(self.spec.labels)] * self.rollouts
        if not self.spec.independent:
            return np.log(named + _HALF)
        usable = features[:, [self.spec.names.index("status/ok")]] * self.rollouts
        return np.log(named + _HALF) - np.log(np.maximum(usable - named, 0.0) + _HALF)

    def tensors(self) -> dict[str, np.ndarray]:
        return {}

    def parameters(self) -> dict[str, Any]:
        return {"rollouts": self.rollouts}

"""The calibrator that watches the video (`kind: vlm`): a model reads each trace beside the frames and names a label by its
code; the mean of what it says over a video's traces, then a temperature (DeepIntuit, arXiv 2603.10300, stage 3).

It looks at traces of a recipe of reviews, whose label probabilities are those of the codes among themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.calibration.features import FeatureSpec


@dataclass(frozen=True)
class ReviewCalibrator:
    """It learns nothing itself: the model has."""

    spec: FeatureSpec
    temperature: float = 1.0
    kind: ClassVar[str] = "vlm"

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logarithm [N, L] of the mean label probabilities over the reviews, from features [N, D]."""
        return self.spec.evidence(features)

    def tensors(self) -> dict[str, np.ndarray]:
        return {}

    def parameters(self) -> dict[str, Any]:
        return {"reduction": "mean"}

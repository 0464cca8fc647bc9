"""The light calibrator (`kind: linear`): softmax regression over the features of a video's traces, then a temperature.

Independent labels have a logistic regression each, over the same features, and one temperature for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.calibration.features import FeatureSpec
from models.language.rule import code_of


@dataclass(frozen=True)
class LinearCalibrator:
    """mean, scale: float64 [D], of the training features; weight [L, D]; bias [L]; temperature > 0."""

    spec: FeatureSpec
    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0
    kind: ClassVar[str] = "linear"

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Uncalibrated logits [N, L] of features [N, D]."""
        return ((features - self.mean) / self.scale) @ self.weight.T + self.bias

    def tensors(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "scale": self.scale, "weight": self.weight, "bias": self.bias}

    def parameters(self) -> dict[str, Any]:
        rule = self.spec.rule
        return {"hashed_words": self.spec.hashed_words} | ({"rule": rule, "rule_code": code_of(rule)} if rule else {})


def fit_linear(spec: FeatureSpec, features: np.ndarray, targets: np.ndarray, l2: float) -> LinearCalibrator:
    """Regression by L-BFGS over all rows at once: deterministic.

    features float64 [N, D]; targets int64: [N], the index of the label; of independent labels [N, L], 1 where one applies. A
    label needs rows to learn from: see `rare.stand_ins`. l2: weight of the squared weights beside the mean loss of a row.
    """
    mean, spread = features.mean(0), features.std(0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    weight, bias = _regress(spec, (features - mean) / scale, targets, l2)
    return LinearCalibrator(spec, mean, scale, weight, bias)


def _regress(spec: FeatureSpec, inputs: np.ndarray, targets: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    import torch  # only training needs it: scoring workers start faster without

    model = torch.nn.Linear(len(spec.names), len(spec.labels), dtype=torch.float64)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    rows = torch.from_numpy(inputs)
    told = torch.from_numpy(targets.astype(np.float64) if spec.independent else targets)

    def loss_of(logits: torch.Tensor) -> torch.Tensor:
        if spec.independent:  # a sum over the labels of a row, as cross_entropy is
            pairs = torch.nn.functional.binary_cross_entropy_with_logits(logits, told, reduction="sum")
            return pairs / len(told)
        return torch.nn.functional.cross_entropy(logits, told)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(rows)) + l2 * (model.weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model.weight.detach().numpy().copy(), model.bias.detach().numpy().copy()

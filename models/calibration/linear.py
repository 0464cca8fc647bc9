"""The light calibrator (`kind: linear`): softmax regression over the features of a video's traces, then a temperature.

Independent labels have a logistic regression each, over the same features, and one temperature for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.calibration.features import FeatureSpec

Batches = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


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

    def facts(self) -> dict[str, Any]:
        return {"hashed_words": self.spec.hashed_words}


def fit_linear(spec: FeatureSpec, batches: Batches, l2: float) -> LinearCalibrator:
    """Regression by L-BFGS on exact sums over all rows: deterministic, and memory does not grow with them.

    batches: called once per pass, gives (features float64 [n, D], targets int64): [n], the index of the label; of
    independent labels [n, L], 1 where one applies. A label needs rows to learn from: see `rare.stand_ins`. l2: weight of
    the squared weights beside the mean loss of a row.
    """
    mean, scale = _moments(spec, batches)
    weight, bias = _regress(spec, batches, mean, scale, l2)
    return LinearCalibrator(spec, mean, scale, weight, bias)


def _moments(spec: FeatureSpec, batches: Batches) -> tuple[np.ndarray, np.ndarray]:
    count, total, squares = 0, np.zeros(len(spec.names)), np.zeros(len(spec.names))
    for features, targets in batches():
        count, total, squares = count + len(targets), total + features.sum(0), squares + (features**2).sum(0)
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return mean, np.where(spread > 1e-9, spread, 1.0)


def _regress(
    spec: FeatureSpec, batches: Batches, mean: np.ndarray, scale: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    import torch  # only training needs it: scoring workers start faster without

    model = torch.nn.Linear(len(spec.names), len(spec.labels), dtype=torch.float64)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def loss_of(logits: torch.Tensor, targets: np.ndarray) -> torch.Tensor:
        if spec.independent:
            applies = torch.from_numpy(targets.astype(np.float64))
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, applies, reduction="sum")
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets), reduction="sum")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss, count = torch.zeros((), dtype=torch.float64), 0
        for features, targets in batches():
            logits = model(torch.from_numpy((features - mean) / scale))
            part = loss_of(logits, targets)
            part.backward()
            loss, count = loss + part.detach(), count + len(targets)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= count
        penalty = l2 * (model.weight**2).sum()
        penalty.backward()
        return loss / count + penalty.detach()

    optimizer.step(closure)
    return model.weight.detach().numpy().copy(), model.bias.detach().numpy().copy()

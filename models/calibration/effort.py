"""Adaptive effort: few traces first, more only where they do not settle it (Video-RTS, arXiv 2507.06485, sparse to dense).

A plan is a list of steps, each so many traces of one recipe. After each step a video stops where its traces agree and one
label alone is in its conformal set, or where no step is left. Each step has weights of its own, learned from the videos that
come so far, and a temperature of those that stop there: what is said is calibrated under the policy by which it came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from models.calibration.conformal import sets, thresholds
from models.calibration.features import FeatureSpec, Trace, vector
from models.calibration.linear import LinearCalibrator, fit_linear
from models.calibration.probabilities import fit_temperature, softmax
from models.calibration.rare import stand_ins
from models.language.rule import code_of

_FEW = 20  # videos that stop at a step, below which its temperature is of all that come to it
_PARTS = ("mean", "scale", "weight", "bias")


@dataclass(frozen=True)
class Step:
    """So many traces of a recipe in all, earlier steps' included."""

    recipe_id: str
    upto: int


@dataclass(frozen=True)
class EffortSpec(FeatureSpec):
    """Features of a video after each step, [S x D]; NaN after steps whose traces are not all there. agreement: share of the
    traces that have to give the same answer."""

    steps: tuple[Step, ...] = ()
    agreement: float = 1.0

    @property
    def plain(self) -> FeatureSpec:
        """Of one step."""
        return FeatureSpec(self.labels, 0, False, self.rule)

    @property
    def width(self) -> int:
        return len(self.steps) * self.plain.width

    @property
    def reads(self) -> tuple[str, ...]:
        return ("recipe_id", *super().reads)

    def matrix(self, videos: Sequence[Sequence[Trace]]) -> np.ndarray:
        return np.stack([self._row(traces) for traces in videos])

    def seen(self, traces: Sequence[Trace], step: int) -> list[Trace] | None:
        """The traces of the first steps up to this one; None where some are not there."""
        own: list[Trace] = []
        upto = {each.recipe_id: each.upto for each in self.steps[: step + 1]}  # the last of a recipe has the most
        for recipe_id, most in upto.items():
            found = [t for t in traces if t["recipe_id"] == recipe_id and t["rollout_index"] < most]
            if len(found) < most:
                return None
            own += found
        return own

    def _row(self, traces: Sequence[Trace]) -> np.ndarray:
        row = np.full((len(self.steps), self.plain.width), np.nan)
        for step in range(len(self.steps)):
            if own := self.seen(traces, step):
                row[step] = vector(own, self.plain)
        return row.ravel()

    def by_step(self, features: np.ndarray) -> np.ndarray:
        """[N, S, D]."""
        return features.reshape(len(features), len(self.steps), self.plain.width)


@dataclass(frozen=True)
class EffortCalibrator:
    """of_step: weights for each step, with the temperature of those that stop there; gates [S]: the temperature by which it
    is told who stops; strange [S, L]: how strange a label may be by that one and still be in the set, see conformal.py."""

    spec: EffortSpec
    of_step: tuple[LinearCalibrator, ...]
    gates: np.ndarray
    strange: np.ndarray
    temperature: float = 1.0
    kind: ClassVar[str] = "adaptive"

    def stops(self, features: np.ndarray) -> np.ndarray:
        """After which step each video stops, int64 [N]; -1 where it goes on beyond those whose features are there."""
        each, found = self.spec.by_step(features), np.full(len(features), -1)
        for step, calibrator in enumerate(self.of_step):
            open_ = (found < 0) & ~np.isnan(each[:, : step + 1]).any((1, 2))
            if open_.any():
                own = each[open_, step]
                settled = _settled(self.spec, calibrator.logits(own), own, float(self.gates[step]), self.strange[step])
                found[np.flatnonzero(open_)[settled | (step == len(self.of_step) - 1)]] = step
        return found

    def taken(self, traces: Sequence[Trace]) -> list[Trace] | None:
        """Of a video's traces those that it is scored by; None where it needs more."""
        stop = int(self.stops(self.spec.matrix([traces]))[0])
        return None if stop < 0 else self.spec.seen(traces, stop)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits [N, L] of features [N, S x D], each by the step after which it stops. Raises ValueError for one that goes
        on."""
        stops, each = self.stops(features), self.spec.by_step(features)
        if (stops < 0).any():
            raise ValueError("adaptive: expected videos whose plan is done, found one that needs more traces")
        found = np.empty((len(features), len(self.spec.labels)))
        for step, calibrator in enumerate(self.of_step):
            own = stops == step
            found[own] = calibrator.logits(each[own, step]) / calibrator.temperature
        return found

    def tensors(self) -> dict[str, np.ndarray]:
        stacked = {name: np.stack([getattr(each, name) for each in self.of_step]) for name in _PARTS}
        temperatures = np.array([each.temperature for each in self.of_step])
        return stacked | {"temperatures": temperatures, "gates": self.gates, "strange": self.strange}

    def parameters(self) -> dict[str, Any]:
        steps, rule = [[step.recipe_id, step.upto] for step in self.spec.steps], self.spec.rule
        told: dict[str, Any] = {"steps": steps, "agreement": self.spec.agreement}
        return told | ({"rule": rule, "rule_code": code_of(rule)} if rule else {})


def loaded(spec: EffortSpec, tensors: Mapping[str, np.ndarray], temperature: float) -> EffortCalibrator:
    """From what `tensors` gave."""
    steps = [
        LinearCalibrator(spec.plain, **{name: tensors[name][step] for name in _PARTS}, temperature=float(own))
        for step, own in enumerate(tensors["temperatures"])
    ]
    return EffortCalibrator(spec, tuple(steps), tensors["gates"], tensors["strange"], temperature)


def _settled(
    spec: EffortSpec, logits: np.ndarray, features: np.ndarray, gate: float, strange: np.ndarray
) -> np.ndarray:
    """Whether each video needs no more, bool [N], by logits [N, L] and features [N, D] after a step."""
    alone = sets(softmax(logits, gate), strange, "lac").sum(1) == 1
    return alone & (features[:, spec.plain.names.index("agreement")] >= spec.agreement)


def fit_effort(
    spec: EffortSpec, features: np.ndarray, targets: np.ndarray, fold: np.ndarray, l2: float, coverage: float
) -> EffortCalibrator:
    """Step by step, from the videos that come so far. features [N, S x D], of whole plans; fold int64 [N]: what is said of a
    video where it has to be honest (sets, temperatures) comes from weights of the other folds. coverage: of the sets."""
    each, comes = spec.by_step(features), np.ones(len(targets), bool)
    made: list[LinearCalibrator] = []
    gates = np.ones(len(spec.steps))
    strange = np.empty((len(spec.steps), len(spec.labels)))
    for step in range(len(spec.steps)):
        if step and not comes.any():  # nobody has come so far: who does is judged as one that came before
            made.append(made[-1])
            gates[step], strange[step] = gates[step - 1], strange[step - 1]
            continue
        own, truth, folds = each[comes, step], targets[comes], fold[comes]
        calibrator = _fit(spec.plain, own, truth, l2)
        logits = _honest(spec.plain, own, truth, folds, l2) if len(np.unique(folds)) > 1 else calibrator.logits(own)
        gates[step] = fit_temperature(logits, truth)
        strange[step] = np.minimum(thresholds(softmax(logits, gates[step]), truth, coverage, "lac"), 2.0)
        stops = _settled(spec, logits, own, gates[step], strange[step]) | (step == len(spec.steps) - 1)
        of_those = stops if stops.sum() >= _FEW else np.ones(len(truth), bool)
        made.append(replace(calibrator, temperature=fit_temperature(logits[of_those], truth[of_those])))
        comes[np.flatnonzero(comes)[stops]] = False
    return EffortCalibrator(spec, tuple(made), gates, strange)


def _fit(spec: FeatureSpec, features: np.ndarray, targets: np.ndarray, l2: float) -> LinearCalibrator:
    return fit_linear(spec, *stand_ins(spec, features, targets).beside(features, targets), l2)


def _honest(spec: FeatureSpec, features: np.ndarray, targets: np.ndarray, fold: np.ndarray, l2: float) -> np.ndarray:
    """Logits [N, L] of weights that have not seen the fold that a row is in."""
    found = np.empty((len(targets), len(spec.labels)))
    for part in np.unique(fold):
        own = fold == part
        found[own] = _fit(spec, features[~own], targets[~own], l2).logits(features[own])
    return found

"""From traces and scores of labelled videos to the predictions of every method that is compared.

A method says of each case one thing or several: logits over the labels, and which answer it gives. Its probabilities are
those of the logits at a temperature, 1 or one that was fitted on cases that the figures are not of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.calibration.features import FeatureSpec, label_logits, vector
from models.calibration.probabilities import binary_nll, fit_temperature, nll, sigmoid, softmax
from models.calibration.vote import VoteCalibrator
from models.evaluation.figures import NOTHING, Predictions

_LEAST = 1e-12  # of a probability, before its logarithm is taken
Trace = Mapping[str, Any]  # columns of the table traces: status, labels, label_logprobs ...


@dataclass(frozen=True)
class Case:
    """One labelled video. truth: the labels that apply, exactly one unless they are independent; source: what it shares with
    others, its own id otherwise; slices: facts, (name, value)."""

    video_id: str
    truth: tuple[str, ...]
    source: str
    slices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Statements:
    """What one method said of all cases. case: int64 [R], whom each row is about; logits: float64 [R, L]; said: int64, the
    answer: [R], the place of a label or NOTHING; of independent labels [R, L], 1, 0 or NOTHING."""

    case: np.ndarray
    logits: np.ndarray
    said: np.ndarray


@dataclass(frozen=True)
class Methods:
    """Makes statements and predictions for one label set."""

    labels: tuple[str, ...]
    independent: bool

    @property
    def spec(self) -> FeatureSpec:
        return FeatureSpec(self.labels, 0, self.independent)

    def of_traces(self, traces: Sequence[Sequence[Trace]]) -> Statements:
        """Every trace speaks by its answer, and by the label probabilities where the answer begins; one without a usable
        answer gives none, with equal probabilities. A case without traces has one such row."""
        return self._rows([[(label_logits(t, self.spec), self._answer(t)) for t in own] for own in traces])

    def of_answers(self, answers: Sequence[Sequence[tuple[str, ...] | None]]) -> Statements:
        """Answers without probabilities: labels named, None for nothing."""
        return self._rows([[(np.zeros(len(self.labels)), self._places(named)) for named in own] for own in answers])

    def of_votes(self, traces: Sequence[Sequence[Trace]], raw: bool) -> Statements:
        """One statement a case. raw: probabilities are the shares of the votes; otherwise those of the calibrator `vote`
        before its temperature. Ties go to the label with the higher mean probability."""
        rows = []
        for own in traces:
            if not own:
                rows.append([self._nothing()])
                continue
            features = vector(own, self.spec)[None]
            shares = features[0, : len(self.labels)]
            ok = np.mean([trace["status"] == "ok" for trace in own])
            if not ok:
                rows.append([self._nothing()])
                continue
            if not raw:
                logits = VoteCalibrator(self.spec, len(own)).logits(features)[0]
            elif self.independent:
                yes = np.clip(shares / ok, _LEAST, 1 - _LEAST)
                logits = np.log(yes) - np.log1p(-yes)
            else:
                logits = np.log(np.maximum(shares / ok, _LEAST))
            evidence = self.spec.evidence(features)[0]
            if self.independent:
                half = shares / ok == 0.5
                said = np.where(half, evidence >= 0, shares / ok > 0.5).astype(np.int64)
            else:
                said = np.array(np.lexsort((-evidence, -shares))[0])
            rows.append([(logits, said)])
        return self._rows(rows)

    def of_probs(self, probs: Sequence[Mapping[str, float] | None]) -> Statements:
        """A scorer's probabilities; the answer is the most probable label, equal ones go by slug; of independent labels each
        that is at least as probable as not. None: it has not scored this case."""
        rows = []
        for given in probs:
            if given is None:
                rows.append([self._nothing()])
                continue
            values = np.array([given[label] for label in self.labels])
            if self.independent:
                kept = np.clip(values, _LEAST, 1 - _LEAST)
                rows.append([(np.log(kept) - np.log1p(-kept), (values >= 0.5).astype(np.int64))])
            else:
                best = min(range(len(values)), key=lambda place: (-values[place], self.labels[place]))
                rows.append([(np.log(np.maximum(values, _LEAST)), np.array(best))])
        return self._rows(rows)

    def temperature(self, found: Statements, cases: Sequence[Case]) -> float:
        """The temperature at which these statements fit the truth best. Raises ValueError without cases."""
        targets = self._targets(cases)[found.case]
        return fit_temperature(found.logits, targets, binary_nll if self.independent else nll)

    def predictions(self, found: Statements, cases: Sequence[Case], temperature: float = 1.0) -> Predictions:
        """What the figures are computed from. Each case weighs 1, however many rows speak of it."""
        rows = np.bincount(found.case, minlength=len(cases))
        weight = 1.0 / rows[found.case]
        _, cluster = np.unique([case.source for case in cases], return_inverse=True)
        targets = self._targets(cases)[found.case]
        if not self.independent:
            probs = softmax(found.logits, temperature)
            return Predictions(self.labels, probs, found.said, targets, weight, found.case, cluster[found.case])
        size = len(self.labels)
        yes = sigmoid(found.logits, temperature).ravel()
        each = np.repeat(found.case, size)
        return Predictions(
            self.labels,
            np.stack([1.0 - yes, yes], axis=1),
            found.said.ravel(),
            targets.ravel(),
            np.repeat(weight, size),
            each,
            cluster[each],
            np.tile(np.arange(size), len(found.case)),
        )

    def _targets(self, cases: Sequence[Case]) -> np.ndarray:
        if self.independent:
            return np.array([[label in case.truth for label in self.labels] for case in cases], dtype=np.int64)
        return np.array([self.labels.index(case.truth[0]) for case in cases], dtype=np.int64)

    def _answer(self, trace: Trace) -> np.ndarray:
        return self._places(tuple(trace["labels"]) if trace["status"] == "ok" else None)

    def _places(self, named: tuple[str, ...] | None) -> np.ndarray:
        if self.independent:
            return np.array([NOTHING if named is None else label in named for label in self.labels], dtype=np.int64)
        return np.array(self.labels.index(named[0]) if named and named[0] in self.labels else NOTHING)

    def _nothing(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(self.labels)), self._places(None)

    def _rows(self, statements: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]]) -> Statements:
        filled = [own or [self._nothing()] for own in statements]
        flat = [row for own in filled for row in own]
        case = np.repeat(np.arange(len(filled)), [len(own) for own in filled])
        return Statements(case, np.stack([logits for logits, _ in flat]), np.stack([said for _, said in flat]))

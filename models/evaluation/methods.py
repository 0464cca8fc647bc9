"""From traces and scores of labelled videos to the predictions of every method that is compared.

A method says of each case one thing or several: logits over the labels, and which answer it gives. Its probabilities are
those of the logits at a temperature, 1 or one that was fitted on cases that the figures are not of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.calibration.features import FeatureSpec, Trace, label_logits, vector
from models.calibration.probabilities import binary_nll, fit_temperature, largest, log_odds, nll, sigmoid, softmax
from models.calibration.vote import VoteCalibrator
from models.evaluation.figures import NOTHING, Predictions

_LEAST = 1e-12  # of a probability, before its logarithm is taken


@dataclass(frozen=True)
class Case:
    """One labelled video. truth: the labels that apply, exactly one unless they are independent; cluster: what it shares
    with others, its own id otherwise; slices: facets, (name, value)."""

    video_id: str
    truth: tuple[str, ...]
    cluster: str
    slices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Score:
    """What a scorer says of one video. usable: whether any of its traces had an answer; decisions abstain otherwise."""

    probs: Mapping[str, float]
    usable: bool = True


@dataclass(frozen=True)
class Statements:
    """What one method said of all cases. case: int64 [R], whom each row is about; logits: float64 [R, L]; guess: int64, the
    answer: [R], the place of a label or NOTHING; of independent labels [R, L], 1, 0 or NOTHING."""

    case: np.ndarray
    logits: np.ndarray
    guess: np.ndarray


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

    def of_vote_shares(self, traces: Sequence[Sequence[Trace]]) -> Statements:
        """One statement a case: the probabilities are the shares of the votes, raw. What most named is the answer; ties as
        in `of_scores`."""

        def logits(features: np.ndarray) -> np.ndarray:
            usable = features[0, self.spec.names.index("status/ok")]
            shares = features[:, : len(self.labels)] / usable
            return log_odds(shares, _LEAST) if self.independent else np.log(np.maximum(shares, _LEAST))

        return self._voted(traces, lambda own: logits(vector(own, self.spec)[None]))

    def of_votes(self, traces: Sequence[Sequence[Trace]]) -> Statements:
        """The same with the probabilities of the calibrator `vote` before its temperature."""
        return self._voted(traces, lambda own: VoteCalibrator(self.spec, len(own)).logits(vector(own, self.spec)[None]))

    def of_scores(self, scores: Sequence[Score | None]) -> Statements:
        """A scorer's probabilities; the answer is the most probable label, equal ones go by slug, as decisions do; of
        independent labels each that is at least as probable as not. None: it has not scored this case."""
        rows = []
        for score in scores:
            if score is None:
                rows.append([self._nothing()])
                continue
            values = np.array([score.probs[label] for label in self.labels])
            logits = log_odds(values, _LEAST) if self.independent else np.log(np.maximum(values, _LEAST))
            rows.append([(logits, self._guess(logits) if score.usable else self._places(None))])
        return self._rows(rows)

    def temperature(self, found: Statements, cases: Sequence[Case]) -> float:
        """The temperature at which these statements fit the truth best. Raises ValueError without cases."""
        targets = self._targets(cases)[found.case]
        return fit_temperature(found.logits, targets, binary_nll if self.independent else nll)

    def predictions(self, found: Statements, cases: Sequence[Case], temperature: float = 1.0) -> Predictions:
        """What the figures are computed from. Each case weighs 1, however many rows speak of it."""
        rows = np.bincount(found.case, minlength=len(cases))
        weight = 1.0 / rows[found.case]
        _, cluster = np.unique([case.cluster for case in cases], return_inverse=True)
        targets = self._targets(cases)[found.case]
        if not self.independent:
            probs = softmax(found.logits, temperature)
            return Predictions(self.labels, probs, found.guess, targets, weight, found.case, cluster[found.case])
        size = len(self.labels)
        yes = sigmoid(found.logits, temperature).ravel()
        each = np.repeat(found.case, size)
        return Predictions(
            self.labels,
            np.stack([1.0 - yes, yes], axis=1),
            found.guess.ravel(),
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

    def _voted(
        self, traces: Sequence[Sequence[Trace]], logits_of: Callable[[Sequence[Trace]], np.ndarray]
    ) -> Statements:
        """logits_of: from the traces of a case, of which one at least has an answer, to logits [1, L]."""
        rows = []
        for own in traces:
            if any(trace["status"] == "ok" for trace in own):
                logits = logits_of(own)[0]
                rows.append([(logits, self._guess(logits))])
            else:
                rows.append([self._nothing()])
        return self._rows(rows)

    def _guess(self, logits: np.ndarray) -> np.ndarray:
        return (logits >= 0).astype(np.int64) if self.independent else largest(logits[None], self.labels)[0]

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
        return Statements(case, np.stack([logits for logits, _ in flat]), np.stack([guess for _, guess in flat]))

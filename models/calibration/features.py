"""What a light calibrator sees of a video: one vector of fixed length made from its K traces.

Traces are dicts with the columns of the table traces that TRACE_FIELDS names.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.calibration.probabilities import log_odds, sigmoid, softmax
from models.language.rule import argued_by, load_rule

TRACE_FIELDS = (
    "rollout_index",
    "status",
    "labels",
    "observation",
    "think",
    "label_logprobs",
    "logprob_sum",
    "tokens",
)
ARGUING = ("observation", "think")  # segments of a trace that a rule finds a label in
Trace = Mapping[str, Any]  # columns of the table traces, these at least
_STATUSES = ("ok", "parse_error", "too_long", "generation_error", "decode_error")
_FLOOR = 1e-4  # probability below which a label counts as ruled out: keeps logarithms finite
_LEAST_LOG = -700.0  # of a probability: still a number when it is turned back
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class FeatureSpec:
    """labels: slugs, in order; hashed_words: buckets for the words of observation and reasoning (0: none).

    independent: whether each label applies or not on its own; otherwise a video has exactly one. rule: the task's own, as
    module:function, by which observation and reasoning vote beside the answer; "" for none.
    """

    labels: tuple[str, ...]
    hashed_words: int
    independent: bool = False
    rule: str = ""

    @property
    def names(self) -> list[str]:
        """The name of every feature, in order."""
        return [
            *(f"votes/{label}" for label in self.labels),
            *(f"prob/{label}" for label in self.labels),
            *(f"{self._evidence}/{label}" for label in self.labels),
            "agreement",
            *(f"status/{status}" for status in _STATUSES),
            "token_logprob/mean",
            "token_logprob/spread",
            "tokens/mean",
            "tokens/spread",
            *(f"{part}/{label}" for part in ARGUING if self.rule for label in self.labels),
            *(f"word/{bucket}" for bucket in range(self.hashed_words)),
        ]

    @property
    def width(self) -> int:
        """How many features there are."""
        return len(self.names)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of traces that they are made of."""
        return TRACE_FIELDS

    def matrix(self, videos: Sequence[Sequence[Trace]]) -> np.ndarray:
        """Features [N, width] of videos by their traces."""
        return np.stack([vector(traces, self) for traces in videos])

    @property
    def _evidence(self) -> str:
        return "logit" if self.independent else "logprob"

    def evidence(self, features: np.ndarray) -> np.ndarray:
        """What the traces themselves say, as logits [N, L], among features [N, D].

        The logarithm of the mean label probabilities; of independent labels, that of their odds.
        """
        first = self.names.index(f"{self._evidence}/{self.labels[0]}")
        return features[:, first : first + len(self.labels)]


def label_logits(trace: Trace, spec: FeatureSpec) -> np.ndarray:
    """Logits [L] that a trace gives the labels where its answer begins: their logarithms, of independent labels log-odds.

    Of a trace without an answer they are 0.
    """
    found = dict(trace["label_logprobs"] or {})
    if trace["status"] != "ok" or any(label not in found for label in spec.labels):
        return np.zeros(len(spec.labels))
    logprobs = np.array([found[label] for label in spec.labels], dtype=np.float64)
    if not spec.independent:
        return logprobs - logprobs.max()
    logprobs = np.clip(logprobs, _LEAST_LOG, -1e-16)  # rounding is no probability above 1
    return logprobs - np.log(-np.expm1(logprobs))


def label_probs(trace: Trace, spec: FeatureSpec) -> np.ndarray:
    """Probabilities [L] that a trace gives the labels where its answer begins; they sum to 1 unless labels are independent.

    Of a trace without an answer they are uniform; of independent labels, 1/2 each.
    """
    logits = label_logits(trace, spec)
    return sigmoid(logits) if spec.independent else softmax(logits)


def votes(traces: Sequence[Trace], labels: Sequence[str]) -> np.ndarray:
    """How many usable traces named each label, [L]."""
    counts = Counter(label for trace in traces if trace["status"] == "ok" for label in trace["labels"])
    return np.array([counts[label] for label in labels], dtype=np.float64)


def agreement(traces: Sequence[Trace]) -> float:
    """Share of the traces that gave the most frequent answer, all the labels that it names; 0 if none answered."""
    answers = Counter(tuple(trace["labels"]) for trace in traces if trace["status"] == "ok")
    return max(answers.values(), default=0) / len(traces)


def vector(traces: Sequence[Trace], spec: FeatureSpec) -> np.ndarray:
    """What every calibrator sees of a video, float64 [D], as FeatureSpec.names has it. Raises ValueError without traces."""
    if not traces:
        raise ValueError("a video needs at least one trace to be scored")
    count = len(traces)
    probs = np.mean([label_probs(trace, spec) for trace in traces], axis=0)
    statuses = Counter(trace["status"] for trace in traces)
    written = [trace for trace in traces if trace["tokens"]]
    rates = [trace["logprob_sum"] / trace["tokens"] for trace in written if trace["logprob_sum"] is not None] or [0.0]
    lengths = [float(trace["tokens"]) for trace in written] or [0.0]
    return np.concatenate(
        [
            votes(traces, spec.labels) / count,
            probs,
            log_odds(probs, _FLOOR) if spec.independent else np.log(np.maximum(probs, _FLOOR)),
            [agreement(traces)],
            [statuses[status] / count for status in _STATUSES],
            [np.mean(rates), np.std(rates), np.mean(lengths), np.std(lengths)],
            _argued(traces, spec),
            _hashed_words(traces, spec.hashed_words),
        ]
    )


def _argued(traces: Sequence[Trace], spec: FeatureSpec) -> np.ndarray:
    """Share of the traces whose observation, and whose thinking, argues for each label, whatever they answer."""
    if not spec.rule:
        return np.empty(0)
    rule = load_rule(spec.rule)
    named = [Counter(argued_by(rule, trace[part]) for trace in traces) for part in ARGUING]
    return np.array([counts[label] / len(traces) for counts in named for label in spec.labels])


def _hashed_words(traces: Sequence[Trace], buckets: int) -> np.ndarray:
    """Signed counts of words by bucket, scaled to unit length, so that long traces weigh no more than short ones."""
    total = np.zeros(buckets)
    if not buckets:
        return total
    for trace in traces:
        for word in _WORD.findall(f"{trace['observation'] or ''} {trace['think'] or ''}"):
            code = zlib.crc32(word.casefold().encode())
            total[code % buckets] += 1.0 if code & 0x80000000 else -1.0
    length = math.sqrt(float(total @ total))
    return total / length if length else total

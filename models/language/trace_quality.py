"""How good a trace is in itself, apart from whether its answer is right: does it argue for what it answers, does it repeat
itself, was the model sure of its words, do its siblings agree?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from models.language.rule import Rule, argued_by

Trace = Mapping[str, Any]  # columns of the table traces

_WORDS = 3  # in a row: what comes again is counted by so many


@dataclass(frozen=True)
class Quality:
    """Of one trace; None where it is not known.

    observation_label, think_label: the label that its observation, its thinking argues for; follows_observation,
    follows_think: whether the answer is that one; observation_right: whether it saw what there is; repetition: share of its
    threes of words that came before in it; token_nll: nats a token under the model itself, at temperature 1 an estimate of
    its entropy; label_entropy: that of the label probabilities where the answer begins, nats; sibling_disagreement: share of
    its siblings that answer otherwise.
    """

    observation_label: str | None
    think_label: str | None
    follows_observation: bool | None
    follows_think: bool | None
    observation_right: bool | None
    repetition: float
    token_nll: float | None
    label_entropy: float | None
    sibling_disagreement: float | None


def of_video(
    traces: Sequence[Trace], rule: Rule | None, observation: str | None, argued: Sequence[str | None] | None = None
) -> list[Quality]:
    """The quality of a video's traces under one recipe, in their order.

    rule: the task's own, None where it has none; argued: what somebody else found their thinking to argue for; observation:
    what is to be seen in the video, where that is known.
    """
    answers = Counter(_answer(trace) for trace in traces if trace["status"] == "ok")
    others = answers.total() - 1
    found = []
    for place, trace in enumerate(traces):
        seen = argued_by(rule, trace["observation"])
        thought = argued[place] if argued else argued_by(rule, trace["think"])
        given = _answer(trace) if trace["status"] == "ok" else None
        measured = trace["tokens"] and trace["logprob_sum"] is not None
        found.append(
            Quality(
                observation_label=seen,
                think_label=thought,
                follows_observation=None if seen is None or given is None else (seen,) == given,
                follows_think=None if thought is None or given is None else (thought,) == given,
                observation_right=None if observation is None else _plain(trace["observation"]) == _plain(observation),
                repetition=repetition(trace["text"] or ""),
                token_nll=-trace["logprob_sum"] / trace["tokens"] if measured else None,
                label_entropy=label_entropy(trace["label_logprobs"]),
                sibling_disagreement=1.0 - (answers[given] - 1) / others if given is not None and others > 0 else None,
            )
        )
    return found


def repetition(text: str) -> float:
    """Share of a text's threes of words that came before in it; 0 for a text of fewer words."""
    words = text.split()
    threes = list(zip(*(words[first:] for first in range(_WORDS)), strict=False))
    return 1.0 - len(set(threes)) / len(threes) if threes else 0.0


def label_entropy(label_logprobs: Mapping[str, float] | Sequence[tuple[str, float]] | None) -> float | None:
    """Entropy in nats of what the labels share among them; None without label probabilities."""
    if not label_logprobs:
        return None
    logprobs = list(dict(label_logprobs).values())
    top = max(logprobs)
    weights = [exp(each - top) for each in logprobs]
    total = sum(weights)
    return -sum(w / total * log(w / total) for w in weights if w > 0)


def _answer(trace: Trace) -> tuple[str, ...]:
    return tuple(trace["labels"])


def _plain(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split()).casefold()

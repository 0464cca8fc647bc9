"""How good a trace is in itself, apart from whether its answer is right: does it argue for what it answers, does it repeat
itself, was the model sure of its words, do its siblings agree?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import exp, log
from typing import Any

Trace = Mapping[str, Any]  # columns of the table traces
# From a segment of a trace (what was observed, what was thought) to the label that it argues for, None for none.
Rule = Callable[[str], str | None]

_WORDS = 3  # in a row: what comes again is counted by so many


@dataclass(frozen=True)
class Quality:
    """Of one trace; None where it is not known. implied, argued: the label that its observation, its thinking argues for;
    follows, consistent: whether the answer is that one; observed: whether the observation is right; repetition: share of its
    threes of words that came before in it; surprise: nats a token under the model itself, at temperature 1 its entropy;
    doubt: entropy of the label probabilities where the answer begins, nats; dissent: share of its siblings that answer
    otherwise."""

    implied: str | None
    argued: str | None
    follows: bool | None
    consistent: bool | None
    observed: bool | None
    repetition: float
    surprise: float | None
    doubt: float | None
    dissent: float | None


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
        implied = _ruled(rule, trace["observation"])
        told = argued[place] if argued else _ruled(rule, trace["think"])
        given = _answer(trace) if trace["status"] == "ok" else None
        measured = trace["tokens"] and trace["logprob_sum"] is not None
        found.append(
            Quality(
                implied=implied,
                argued=told,
                follows=None if implied is None or given is None else (implied,) == given,
                consistent=None if told is None or given is None else (told,) == given,
                observed=None if observation is None else _plain(trace["observation"]) == _plain(observation),
                repetition=repetition(trace["text"] or ""),
                surprise=-trace["logprob_sum"] / trace["tokens"] if measured else None,
                doubt=doubt(trace["label_logprobs"]),
                dissent=1.0 - (answers[given] - 1) / others if given is not None and others > 0 else None,
            )
        )
    return found


def repetition(text: str) -> float:
    """Share of a text's threes of words that came before in it; 0 for a text of fewer words."""
    words = text.split()
    threes = list(zip(*(words[first:] for first in range(_WORDS)), strict=False))
    return 1.0 - len(set(threes)) / len(threes) if threes else 0.0


def doubt(label_logprobs: Mapping[str, float] | Sequence[tuple[str, float]] | None) -> float | None:
    """Entropy in nats of what the labels share among them; None without label probabilities."""
    if not label_logprobs:
        return None
    logprobs = list(dict(label_logprobs).values())
    top = max(logprobs)
    weights = [exp(each - top) for each in logprobs]
    total = sum(weights)
    return -sum(w / total * log(w / total) for w in weights if w > 0)


def load_rule(name: str) -> Rule:
    """The rule that a task names as module:function. Raises ValueError where there is none."""
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"rule: expected module:function that can be imported, found {name!r}: {error}") from None


def _ruled(rule: Rule | None, segment: str | None) -> str | None:
    return rule(segment) if rule and segment else None


def _answer(trace: Trace) -> tuple[str, ...]:
    return tuple(trace["labels"])


def _plain(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split()).casefold()

"""Rewards: small functions of one rollout, each a number from 0 to 1, added up by the weights in the settings.

A site adds its own as `module:function` with the same signature.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from models.language import grammar
from models.language.grammar import Parsed
from models.language.rule import Rule, argued_by


class RewardError(ValueError):
    """A reward that cannot be found, or gave no finite number; the message names its setting."""


@dataclass(frozen=True)
class Judged:
    """One rollout as rewards see it.

    truth: the video's labels, in the task's order; labels: all of the task; observation_label, think_label: the label that
    its observation, its reasoning argues for, None where none is known; tokens: generated ones.
    """

    text: str
    parsed: Parsed
    truth: tuple[str, ...]
    labels: tuple[str, ...]
    observation_label: str | None
    think_label: str | None
    tokens: int


Reward = Callable[[Judged], float]
# What a reward is about; None: the whole of it.
OBSERVATION, REASONING = "observation", "reasoning"


def judge(
    text: str,
    name: str,
    finish_reason: str,
    tokens: int,
    truth: tuple[str, ...],
    labels: tuple[str, ...],
    several: bool = False,
    begun: str = "",
    rule: Rule | None = None,
) -> Judged:
    """Read one completion of a grammar `name`; arguments as of `grammar.parse`. rule: the task's own, where it has one; else
    the reasoning argues for the label that it names last."""
    parsed = grammar.parse(text, name, labels, finish_reason, several, begun)
    argued = argued_by(rule, parsed.think) if rule else _named_last(parsed.think or "", labels)
    return Judged(text, parsed, truth, labels, argued_by(rule, parsed.observation), argued, tokens)


def accuracy(judged: Judged) -> float:
    """1 where the answer is the video's own labels, letter for letter but for case (DeepIntuit, stage 2)."""
    return float(judged.parsed.labels == judged.truth)


def format(judged: Judged) -> float:
    """1 where the whole completion matches the grammar, with something in it (DeepIntuit, stage 2).

    Nothing comes of tags that are repeated, nested or foreign, of segments that are blank, of reasoning that only names
    labels, and of an observation that names one: what is seen is to be described before it is judged.
    """
    parsed = judged.parsed
    words = set(re.findall(r"\w[\w-]*|[<>=]", (parsed.think or "").casefold()))
    reasons = bool(words - {label.casefold() for label in judged.labels})
    sees = parsed.observation is None or bool(parsed.observation)
    judges = parsed.observation is not None and _named_last(parsed.observation, judged.labels) is not None
    return float(parsed.status == grammar.OK and parsed.well_formed and reasons and sees and not judges)


def consistency(judged: Judged) -> float:
    """1 where the reasoning argues for the answer that follows it (think-answer consistency, Video-R2) and the observation
    before it for nothing else, right or wrong.

    Alone it is learned best by an answer that most observations happen to argue for.
    """
    argued = judged.think_label
    return float(
        argued is not None and judged.parsed.labels == (argued,) and judged.observation_label in (None, argued)
    )


def sound(judged: Judged) -> float:
    """1 where the answer is right and consistent.

    One that came right against what was seen or argued was guessed, and accuracy would teach to guess.
    """
    return accuracy(judged) * consistency(judged)


def evidence(judged: Judged) -> float:
    """1 where the observation alone argues for the video's own label, by the task's rule, whatever the answer says.

    VideoP2R rewards what is seen so, by whether it is evidence enough. In a task without a rule it is always 0.
    """
    return float(judged.observation_label is not None and judged.truth == (judged.observation_label,))


def length(judged: Judged, least: int, most: int) -> float:
    """1 where a right and well-formed completion has `least` to `most` tokens (VideoP2R gives its bonus so)."""
    return float(least <= judged.tokens <= most and accuracy(judged) > 0 and format(judged) > 0)


@dataclass(frozen=True)
class Rewards:
    """Named rewards: function, weight, and what it is about."""

    parts: Mapping[str, tuple[Reward, float, str | None]]

    def of(self, judged: Judged) -> dict[str, float]:
        """Each reward by name. Raises RewardError for one that is no finite number."""
        found = {}
        for name, (reward, _, _) in self.parts.items():
            value = reward(judged)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise RewardError(f"refine.rewards.{name}: expected a finite number for a rollout, found {value!r}")
            found[name] = float(value)
        return found

    def about_what_is_seen(self, has_rule: bool) -> bool:
        """Whether any reward tells what is seen right from what is seen wrong; has_rule: the task, for evidence."""
        return any(
            has_rule if reward is evidence else reward is not format
            for reward, _, about in self.parts.values()
            if about != REASONING
        )

    def total(self, found: Mapping[str, float], part: str | None = None) -> float:
        """The weighted sum: of all, or of those about a part and about the whole."""
        return sum(
            weight * found[name]
            for name, (_, weight, about) in self.parts.items()
            if part is None or about in (None, part)
        )


def rewards(weights: Mapping[str, float], least: int, most: int) -> Rewards:
    """The rewards that the settings name, built in or `module:function`. Raises RewardError for an unknown one.

    least, most: tokens, of the reward `length`.
    """
    known: dict[str, tuple[Reward, str | None]] = {
        "accuracy": (accuracy, REASONING),
        "format": (format, None),
        "consistency": (consistency, REASONING),
        "sound": (sound, REASONING),
        "evidence": (evidence, OBSERVATION),
        "length": (partial(length, least=least, most=most), REASONING),
    }
    parts = {}
    for name, weight in weights.items():
        reward, about = known.get(name) or (_load(name, list(known)), None)
        parts[name] = (reward, weight, about)
    return Rewards(parts)


def _load(name: str, known: list[str]) -> Reward:
    module, separator, function = name.partition(":")
    try:
        if not separator:
            raise ImportError("no such reward")
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RewardError(
            f"refine.rewards.{name}: expected {', '.join(known)}, or module:function that can be imported: {error}"
        ) from None


def _named_last(segment: str, labels: tuple[str, ...]) -> str | None:
    """The label that a text names last, as a word of its own."""
    folded = segment.casefold()
    places = {label: _last_place(folded, label.casefold()) for label in labels}
    found = max(places, key=lambda label: places[label])
    return found if places[found] >= 0 else None


def _last_place(text: str, word: str) -> int:
    """Where a word begins last, -1 for nowhere; letters, digits, - and _ around it make it another word."""
    found = -1
    for match in re.finditer(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text):
        found = match.start()
    return found

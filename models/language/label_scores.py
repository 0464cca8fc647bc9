"""What is asked of a model behind a completion to learn how probable each label was there.

A look is one step of the model behind some tokens: of the completion the first `kept`, then a tail; wanted are the
log-probabilities of some tokens there. Looks come in rounds: what one found decides where the next one goes on. An engine
takes them on the prefix that it has computed already, and where a tail is what the completion itself says, it may have seen
the answer in passing; so generating costs nothing more, whatever the labels are called.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import exp, log, log1p
from typing import Any, Protocol

from models.language.answers import decode, encode, tokens_before, without_end
from models.language.codes import code_ids
from models.language.grammar import QUOTES, answer_opening, bare
from models.language.prompts import next_turn

# Characters from the tag to the label, and from there to the closing tag. A completion that strays further before it has no
# place for labels; what strays further behind it is scored as if it did not.
_LONGEST = 64
# Labels that begin alike are told apart where they have at least this share of what all labels have; below it they share
# evenly. So a probability is off by less than this, and a trained model, which is sure, is asked little.
_LEAST = 1e-4

Found = Mapping[int, float]  # token -> natural log of its probability


@dataclass(frozen=True)
class Choice:
    """The labels of which an answer names one: their log-probabilities are wanted where the answer's content begins."""

    labels: tuple[str, ...]


@dataclass(frozen=True)
class Checks:
    """A yes/no question for every label, asked in a turn of its own behind each completion that has an answer.

    questions: label and the text of the user's turn; codes: the tokens for yes and for no.
    """

    questions: tuple[tuple[str, str], ...]
    codes: tuple[str, str]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for label, _ in self.questions)


Scored = Choice | Checks | None


@dataclass(frozen=True)
class Look:
    """The tail behind the kept tokens, and the tokens whose log-probabilities are wanted next."""

    tail: tuple[int, ...]
    ids: tuple[int, ...]


Rounds = Generator[tuple[Look, ...], Sequence[Found], dict[str, float]]


@dataclass(frozen=True)
class Looks:
    """kept: how many tokens of the completion stay; rounds: yields the looks of a round, is sent what each of them found,
    and returns the label scores."""

    kept: int
    rounds: Rounds

    def all(self, find: Callable[[Look], Found]) -> dict[str, float]:
        """The label scores, where each look can be answered at once."""
        found: list[Found] | None = None
        while True:
            try:
                looks = self.rounds.send(found)  # type: ignore[arg-type]  # the first one is None
            except StopIteration as end:
                return end.value
            found = [find(look) for look in looks]


class LabelScores(Protocol):
    """longest: tokens to leave free for a tail behind a completion."""

    longest: int

    def looks(self, token_ids: Sequence[int]) -> Looks | None:
        """What to look at behind these generated tokens; None where no answer was begun."""
        ...


def reader(processor: Any, scored: Choice | Checks, end_ids: frozenset[int]) -> LabelScores:
    """What asks for the label scores of completions of a model. Raises ValueError where its codes or its chat template will
    not do."""
    tokenizer = processor.tokenizer
    if isinstance(scored, Choice):
        return OfChoice(tokenizer, scored.labels, end_ids)
    tails = {label: encode(tokenizer, next_turn(processor, question)) for label, question in scored.questions}
    yes, no = code_ids(tokenizer, scored.codes)
    return OfChecks(tokenizer, tails, yes, no, end_ids)


class OfChoice:
    """The answer names one label. Its log-probability is that of its tokens up to where no other label goes on alike.

    The labels are written as the completion writes its answer: between the same spaces, quotes and stops, in the same case.
    They are tokenized together with the tag before them, since a tokenizer may glue the two, and put into a tree by their
    tokens; a look for every node of it that several labels share and that is not ruled out. So labels may begin alike, or
    one be the beginning of another.
    """

    def __init__(self, tokenizer: Any, labels: Sequence[str], end_ids: frozenset[int]) -> None:
        self._tokenizer, self._labels, self._end_ids = tokenizer, tuple(labels), end_ids
        self._tree = lru_cache(maxsize=256)(self._plant)
        self.longest = max(len(ids) for ids in self._tokens('\n<answer> "', '"', str).values())

    def looks(self, token_ids: Sequence[int]) -> Looks | None:
        ids = without_end(token_ids, self._end_ids)
        text = decode(self._tokenizer, ids)
        opening = answer_opening(text)
        if opening is None:
            return None
        kept, place = tokens_before(self._tokenizer, ids, text, opening.tag)
        before = text[place : opening.start]
        if len(before) > _LONGEST:
            return None
        quote = before.rstrip()[-1]
        written, closed, _ = text[opening.start :].partition("</answer>")
        said = bare(quote + written if quote in QUOTES else written)
        after = written.removeprefix(said)
        if not closed or not written.startswith(said) or len(after) > _LONGEST:
            after = QUOTES.get(quote, "")
        tree = self._tree(before, after, _case(said, self._labels))
        return Looks(kept, tree.rounds())

    def _plant(self, before: str, after: str, case: Callable[[str], str]) -> _Tree:
        return _Tree(self._tokens(before, after, case), encode(self._tokenizer, before))

    def _tokens(self, before: str, after: str, case: Callable[[str], str]) -> dict[str, tuple[int, ...]]:
        return {label: encode(self._tokenizer, f"{before}{case(label)}{after}</answer>") for label in self._labels}


class OfChecks:
    """A question for every label behind the whole completion, answered by one of two codes.

    tails: label -> the tokens of the turn that asks; a label's log-probability is that of yes against no.
    """

    def __init__(
        self, tokenizer: Any, tails: Mapping[str, tuple[int, ...]], yes: int, no: int, end_ids: frozenset[int]
    ) -> None:
        self._tokenizer, self._labels, self._end_ids = tokenizer, tuple(tails), end_ids
        self._yes, self._no = yes, no
        self._looks = tuple(Look(tail, (yes, no)) for tail in tails.values())
        self.longest = max(map(len, tails.values()))

    def looks(self, token_ids: Sequence[int]) -> Looks | None:
        ids = without_end(token_ids, self._end_ids)
        if answer_opening(decode(self._tokenizer, ids)) is None:
            return None
        return Looks(len(ids), self._rounds())

    def _rounds(self) -> Rounds:
        found = yield self._looks
        return {label: -_softplus(at[self._no] - at[self._yes]) for label, at in zip(self._labels, found, strict=True)}


@dataclass
class _Node:
    labels: list[str] = field(default_factory=list)
    children: dict[int, _Node] = field(default_factory=dict)


class _Tree:
    """Labels by their tokens. `opening`: the tokens before a label, as far as all have them, are given, not asked for."""

    def __init__(self, tokens: Mapping[str, tuple[int, ...]], opening: tuple[int, ...]) -> None:
        given = 0
        while given < len(opening) and all(
            ids[given : given + 1] == opening[given : given + 1] for ids in tokens.values()
        ):
            given += 1
        self._given, self._root = opening[:given], _Node(list(tokens))
        for label, ids in tokens.items():
            node = self._root
            for token in ids[given:]:
                node = node.children.setdefault(token, _Node())
                node.labels.append(label)

    def rounds(self) -> Rounds:
        """A level of the tree each: the root, then the nodes at which more than one label may still come."""
        scores = dict.fromkeys(self._root.labels, 0.0)
        level: list[tuple[tuple[int, ...], _Node, float]] = [((), self._root, 0.0)]
        least = None
        while level:
            found = yield tuple(Look(self._given + path, tuple(node.children)) for path, node, _ in level)
            if least is None:
                least = log(_LEAST) + _log_sum([found[0][token] for token in self._root.children])
            below = []
            for (path, node, before), at in zip(level, found, strict=True):
                for token, child in node.children.items():
                    total = before + at[token]
                    if len(child.labels) > 1 and total >= least:
                        below.append(((*path, token), child, total))
                    else:
                        scores |= dict.fromkeys(child.labels, total - log(len(child.labels)))
            level = below
        return scores


def _case(said: str, labels: Sequence[str]) -> Callable[[str], str]:
    """How the completion spells its label: as the task does, or in capitals, all of them or the first."""
    for case in (str, str.upper, str.capitalize, str.title):
        if any(case(label) == said for label in labels):
            return case
    return str


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + log(sum(exp(each - top) for each in logs))


def _softplus(x: float) -> float:
    return max(x, 0.0) + log1p(exp(-abs(x)))

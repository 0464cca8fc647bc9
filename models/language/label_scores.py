"""What is asked of a model behind a completion to learn how probable each label was there.

A look is one step of the model behind some tokens: of the completion the first `kept`, then a tail; wanted are the
log-probabilities of some tokens there. An engine takes the looks of a completion on the prefix that it has computed already,
so generating costs nothing more, whatever the labels are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import exp, log1p
from typing import Any, Protocol

from models.language.answers import decode, encode, tokens_before, without_end
from models.language.codes import code_ids
from models.language.grammar import QUOTES, answer_opening, bare
from models.language.prompts import next_turn

# Characters from the tag to the label, and from there to the closing tag. A completion that strays further before it has no
# place for labels; what strays further behind it is scored as if it did not.
_LONGEST = 64


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


@dataclass(frozen=True)
class Looks:
    """kept: how many tokens of the completion stay; read: from what each look found (token -> natural log) to labels."""

    kept: int
    looks: tuple[Look, ...]
    read: Callable[[Sequence[Mapping[int, float]]], dict[str, float]]


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
    tokens; one look for every node of it that several labels share. So labels may begin alike, or one be the beginning of
    another.
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
        kept, place = tokens_before(self._tokenizer, ids, opening.tag)
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
        return Looks(kept, tree.looks, tree.read)

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
        return Looks(len(ids), self._looks, self._read)

    def _read(self, found: Sequence[Mapping[int, float]]) -> dict[str, float]:
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
        self._tokens = {label: ids[given:] for label, ids in tokens.items()}
        root = _Node(list(tokens))
        for label, ids in self._tokens.items():
            node = root
            for token in ids:
                node = node.children.setdefault(token, _Node())
                node.labels.append(label)
        self._places = {path: number for number, (path, _) in enumerate(_shared(root))}
        self.looks = tuple(Look(opening[:given] + path, tuple(node.children)) for path, node in _shared(root))

    def read(self, found: Sequence[Mapping[int, float]]) -> dict[str, float]:
        scores = {}
        for label, ids in self._tokens.items():
            total, at = 0.0, 0
            while (number := self._places.get(ids[:at])) is not None:
                total += found[number][ids[at]]
                at += 1
            scores[label] = total
        return scores


def _shared(node: _Node, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], _Node]]:
    """Every node at which more than one label may still come, and the tokens that lead there."""
    if len(node.labels) > 1 or not path:
        yield path, node
        for token, child in node.children.items():
            yield from _shared(child, (*path, token))


def _case(said: str, labels: Sequence[str]) -> Callable[[str], str]:
    """How the completion spells its label: as the task does, or in capitals, all of them or the first."""
    for case in (str, str.upper, str.capitalize, str.title):
        if any(case(label) == said for label in labels):
            return case
    return str


def _softplus(x: float) -> float:
    return max(x, 0.0) + log1p(exp(-abs(x)))

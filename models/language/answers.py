"""The answer in tokens: where its content begins in a completion, and which token each label would put there.

A label's score is the log-probability of its first token at the place where the answer's content begins (METHODS,
DeepIntuit's calibrator). Models write "<answer>label" as well as "<answer> label", and tokenizers glue the space to the
word, so each label has a token for either way of writing; the completion itself says which one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.language.grammar import answer_start

PLAIN, SPACED = 0, 1


@dataclass(frozen=True)
class Place:
    """Where the answer's content begins: index of the generated token, and how the label is written there."""

    position: int
    form: int  # PLAIN | SPACED


def find_answer(tokenizer: Any, token_ids: Sequence[int]) -> Place | None:
    """Where the answer's content begins among generated tokens; None where none was begun.

    None also where the content begins in the middle of a token, for then no token stands for the label.
    """
    ids = list(token_ids)
    text = _decode(tokenizer, ids)
    start = answer_start(text)
    if start is None or start >= len(text):
        return None
    low, high = 0, len(ids) - 1  # the first token whose end lies beyond the start: texts of prefixes only grow
    while low < high:
        middle = (low + high) // 2
        if len(_decode(tokenizer, ids[: middle + 1])) > start:
            high = middle
        else:
            low = middle + 1
    before = len(_decode(tokenizer, ids[:low]))
    if before == start:
        return Place(low, PLAIN)
    return Place(low, SPACED) if text[before:start] == " " else None


@dataclass(frozen=True)
class LabelTokens:
    """The first token of each label at the answer position, by form; rows follow `labels`."""

    labels: tuple[str, ...]
    plain: tuple[int, ...]
    spaced: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any, labels: Sequence[str]) -> LabelTokens:
        """Raises ValueError for two labels with the same first token, naming both, and for one without a token."""
        forms = []
        for lead in ("", " "):
            owners: dict[int, str] = {}
            for label in labels:
                token = _first_token(tokenizer, label, lead)
                if token in owners:
                    raise ValueError(
                        f"labels {owners[token]!r} and {label!r} begin with the same token "
                        f"{_decode(tokenizer, [token])!r} of this model, so one cannot be scored against the other: "
                        "give one of them another slug"
                    )
                owners[token] = label
            forms.append(tuple(owners))
        return cls(tuple(labels), *forms)

    @property
    def ids(self) -> list[int]:
        """Every token of every form once: what an engine must report the log-probability of."""
        return sorted({*self.plain, *self.spaced})

    def at(self, place: Place) -> dict[str, int]:
        """The token of each label at this place."""
        return dict(zip(self.labels, self.plain if place.form == PLAIN else self.spaced, strict=True))


def _first_token(tokenizer: Any, label: str, lead: str) -> int:
    ids = tokenizer.encode(f"</think>\n<answer>{lead}{label}</answer>", add_special_tokens=False)
    place = find_answer(tokenizer, ids)
    if place is None:
        raise ValueError(f"label {label!r} has no token of its own after <answer>{lead} in this model's tokenizer")
    return ids[place.position]


def completion_text(tokenizer: Any, token_ids: Sequence[int], end_ids: frozenset[int], stop: Sequence[str]) -> str:
    """The text of generated tokens: without a final end-of-turn token, cut behind the first stop string."""
    ids = list(token_ids)
    if ids and ids[-1] in end_ids:
        ids.pop()
    text = _decode(tokenizer, ids)
    ends = [at + len(s) for s in stop if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

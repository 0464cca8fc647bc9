"""Codes: short texts that are one token each, by which a question is answered in one step whatever its labels are called.

Of labels themselves that cannot be said: many begin with the same token, and some with none of their own (FACTS, label
tokens of a real tokenizer). Models favour some codes over others (position bias): ask in several rotations and average.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import numpy as np

from models.language.answers import encode

YES_NO = (("Yes", "No"), ("yes", "no"), ("A", "B"), ("1", "0"))  # the first pair that a tokenizer has is taken


def _candidates() -> Iterator[str]:
    yield from ascii_uppercase
    yield from map(str, range(10))
    yield from map("".join, product(ascii_uppercase, repeat=2))
    yield from ascii_lowercase
    yield from (f"{number:02}" for number in range(100))
    yield from map("".join, product(ascii_lowercase, repeat=2))
    yield from map("".join, product(ascii_lowercase, repeat=3))


def choose(tokenizer: Any, count: int) -> tuple[str, ...]:
    """So many codes of a tokenizer: A, B, C, ..., then digits and pairs of letters. Raises ValueError if it has too few."""
    found: list[str] = []
    for text in _candidates():
        if len(found) == count:
            break
        if len(encode(tokenizer, text)) == 1:
            found.append(text)
    if len(found) < count:
        raise ValueError(f"codes: expected {count} texts of one token each, this tokenizer has {len(found)}")
    return tuple(found)


def yes_no(tokenizer: Any) -> tuple[str, str]:
    """The codes for yes and for no. Raises ValueError if a tokenizer has none of YES_NO."""
    for pair in YES_NO:
        if all(len(encode(tokenizer, text)) == 1 for text in pair):
            return pair
    raise ValueError(f"codes: expected a tokenizer with one token each for one of {', '.join(map('/'.join, YES_NO))}")


def code_ids(tokenizer: Any, codes: Sequence[str]) -> tuple[int, ...]:
    """The token of each code. Raises ValueError for one that is not one token, or that comes twice."""
    ids = [encode(tokenizer, code) for code in codes]
    for code, found in zip(codes, ids, strict=True):
        if len(found) != 1:
            raise ValueError(f"code {code!r}: expected one token of this model, found {len(found)}")
    if len(set(ids)) < len(ids):
        raise ValueError(f"codes: expected different tokens, found {', '.join(codes)}")
    return tuple(found[0] for found in ids)


def rotated(labels: Sequence[str], codes: Sequence[str], by: int) -> dict[str, str]:
    """label -> code, the codes given out from the `by`-th on: over all rotations every label has every code once.

    Raises ValueError where there are fewer codes than labels.
    """
    if len(codes) < len(labels):
        raise ValueError(f"codes: expected one for each of {len(labels)} labels, found {len(codes)}")
    used = codes[: len(labels)]
    return {label: used[(place + by) % len(used)] for place, label in enumerate(labels)}


def unrotated(logprobs: np.ndarray) -> np.ndarray:
    """Probabilities of the labels [labels], free of position bias, from log-probabilities [rotations, codes].

    Row r is of a question in which the codes were given out from the r-th on (`rotated`). What a code adds to its label's
    logarithm, whichever label that is, is the same for all labels in the mean over the rotations, and so falls out.
    """
    rotations, count = logprobs.shape
    own = np.stack([logprobs[r, (np.arange(count) + r) % count] for r in range(rotations)])
    mean = own.mean(0)
    weights = np.exp(mean - mean.max())
    return weights / weights.sum()

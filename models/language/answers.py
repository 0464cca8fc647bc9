"""Completions in tokens: their text, and how many whole tokens lie before a place in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any


def completion_text(tokenizer: Any, token_ids: Sequence[int], end_ids: frozenset[int], stop: Sequence[str]) -> str:
    """The text of generated tokens: without a final end-of-turn token, cut behind the first stop string."""
    text = decode(tokenizer, without_end(token_ids, end_ids))
    ends = [at + len(s) for s in stop if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text


def without_end(token_ids: Sequence[int], end_ids: frozenset[int]) -> list[int]:
    """The tokens but for a final end-of-turn token."""
    ids = list(token_ids)
    return ids[:-1] if ids and ids[-1] in end_ids else ids


def tokens_before(tokenizer: Any, token_ids: Sequence[int], text: str, offset: int) -> tuple[int, int]:
    """How many tokens end at or before a place in their text, counted in characters, and where the last of them ends."""
    ids = list(token_ids)
    # Most tokens have the same length in a text as alone; places that are asked for are near its end.
    guess, place = len(ids), len(text)
    while guess and place > offset:
        guess -= 1
        place -= _length(tokenizer, ids[guess])
    if place == offset == len(decode(tokenizer, ids[:guess])):
        return guess, place
    low, high = 0, len(ids)  # texts of prefixes only grow
    while low < high:
        middle = (low + high + 1) // 2
        if len(decode(tokenizer, ids[:middle])) <= offset:
            low = middle
        else:
            high = middle - 1
    return low, len(decode(tokenizer, ids[:low]))


@lru_cache(maxsize=1 << 16)
def _length(tokenizer: Any, token: int) -> int:
    return len(decode(tokenizer, [token]))


def encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The tokens of a text, none added."""
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of tokens as it is, special tokens included."""
    return tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
